"""The training program: shards -> a trained VGG16, its metrics, its report, its predictions.

The functions behind the commands are listed in `__init__.pyi` and imported when they are first used.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
