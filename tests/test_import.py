"""`import lrops` opens few files: a job of a thousand processes reads them all from one file system."""

import compileall

from processes import run_python

COUNT = """
import sys
import keras, tensorflow
before, opened, counting = set(sys.modules), [], True
sys.addaudithook(lambda event, arguments: counting and event == "open" and opened.append(arguments[0]))
import lrops
counting = False
print(len(opened), *sorted(set(sys.modules) - before))
"""


def test_import_opens_few_files_and_no_matplotlib(package):
    compileall.compile_dir(package, quiet=1)  # as pip does
    result = run_python("-c", COUNT, folder=package.parent, PYTHONPATH=str(package.parent), TESTS_WITHOUT="")
    assert result.returncode == 0, result.stderr
    count, *modules = result.stdout.split()
    assert "lrops.schedules" in modules
    assert 5 < int(count) < 25
    assert not [name for name in modules if name.split(".")[0] in ("matplotlib", "sklearn", "tf_keras", "tqdm")]
