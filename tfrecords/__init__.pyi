from .dataset import Dataset as Dataset
from .dataset import open_dataset as open_dataset

__version__: str
