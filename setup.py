"""What pyproject.toml cannot say: three folders of the repository become packages of `ladd_dist.zoo`."""

from setuptools import find_packages, setup

FOLDERS = ("plugins", "recipes", "slurm")  # at the top of site-packages they would collide with other people's
shipped = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])

setup(
    packages=[*find_packages(include=["ladd_dist", "ladd_dist.*"]), *(f"ladd_dist.zoo.{name}" for name in shipped)],
    package_dir={f"ladd_dist.zoo.{folder}": folder for folder in FOLDERS},
)
