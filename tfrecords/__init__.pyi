from .builtin import find_tree as find_tree
from .dataset import Dataset as Dataset
from .dataset import open_dataset as open_dataset
from .errors import ConfigError as ConfigError
from .errors import DatasetError as DatasetError
from .errors import GalaxyZooError as GalaxyZooError
from .errors import ImageError as ImageError
from .errors import RecordError as RecordError
from .errors import RunError as RunError
from .errors import SettingError as SettingError
from .errors import SourceError as SourceError
from .errors import TreeError as TreeError
from .storage import open_anywhere as open_anywhere
from .tree import Question as Question
from .tree import Tree as Tree

__version__: str
