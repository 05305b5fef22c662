"""What a command says of a config file that fails, and how its warnings look."""

import signal
import subprocess
import sys
from logging import makeLogRecord

import pytest
from absl import flags, logging
from ml_collections import config_flags

from ncfair_jax import launcher
from tests.started import ROOT, environment


@pytest.fixture
def config_flag(monkeypatch):
    """absl's flags with a `--config` of their own, so that other tests' flags, and what is logged there, stay as they are."""
    values = flags.FlagValues()
    sys.modules.pop("config_config", None)  # ml_collections reads every config file into this module
    config_flags.DEFINE_config_file("config", flag_values=values)
    monkeypatch.setattr(launcher.flags, "FLAGS", values)
    logger, handler = logging.get_absl_logger(), logging.get_absl_handler()
    verbosity, level, formatter = logging.get_verbosity(), logger.level, handler.python_handler.formatter
    yield
    logging.set_verbosity(verbosity)
    logger.setLevel(level)
    handler.setFormatter(formatter)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (
            "from ncfair_jax.recipes import parse_arg\ndef get_config(arg):\n    return parse_arg(arg, ('cola', 'sst2'))\n",
            "{file}:colla: config argument 'colla'; choose from cola, sst2",
        ),
        (
            "def get_config(arg):\n    return int(arg)\n",
            "{file}:colla: ValueError: invalid literal for int() with base 10: 'colla' ({file}, line 2)",
        ),
    ],
    ids=["an argument that it does not know", "an error in it"],
)
def test_a_failing_config_file_is_told_in_one_line(content, told, tmp_path, capsys, config_flag):
    file = tmp_path / "mine.py"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit):
        launcher.parse_flags(["train.py", f"--config={file}:colla"])
    assert capsys.readouterr().err == f"error: flag --config={told.format(file=file)}; --helpshort lists the flags\n"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("import nothing_there\n", "ModuleNotFoundError: No module named 'nothing_there' ({file}, line 1)"),
        ("x = 1\nx /= 0\n", "ZeroDivisionError: division by zero ({file}, line 2)"),
        (
            "import json\njson.loads('1')['a']\njson.loads('')\n",
            "TypeError: 'int' object is not subscriptable ({file}, line 2)",
        ),
        ("import statistics\nstatistics.mean([])\n", "mean requires at least one data point ({file}, line 2)"),
        ("def get_config(:\n", "SyntaxError: invalid syntax ({file}, line 1)"),
        ("x = 1\n", "the config file has no function get_config; it returns base_config(), with some fields changed"),
        (
            "from ncfair_jax.config import base_config\n",
            "base_config is in ncfair_jax.recipes now; change this line ({file}",
        ),
    ],
)
def test_a_config_file_that_cannot_be_run_is_told_in_one_line(content, told, tmp_path, capsys, config_flag):
    file = tmp_path / "mine.py"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(SystemExit):
        launcher.parse_flags(["train.py", f"--config={file}"])
    text = capsys.readouterr().err
    assert told.format(file=file) in text and text.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "told"),
    [
        ("--config.mabel.pairs=x", "config.mabel.pairs: mlm has no such field; it is one of mabel"),
        ("--config.adept.mode=raw", "config.adept.mode: mlm has no such field; it is one of adept"),
        ("--config.mabel.piars=x", "config.mabel.piars: mlm has no such field; it is one of mabel"),
    ],
)
def test_a_flag_of_another_method_is_told_in_one_line(flag, told, tmp_path, capsys, config_flag, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text("from ncfair_jax.recipes import base_config as get_config\n", encoding="utf-8")
    argv = ["train.py", f"--config={file}", "--config.train.steps=3", flag]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        launcher.parse_flags(argv)
    assert capsys.readouterr().err == f"error: {told}; --helpshort lists the flags\n"


@pytest.mark.parametrize(
    ("flags_given", "told"),
    [
        (["--nosuch=1"], "Unknown command line flag 'nosuch'"),
        (["--config=no/such.py"], "--config=no/such.py: there is no such file; configs/ has one for each method"),
        (["--config={file}", "--config.nc3.wieght=1"], '\'wieght\'; did you mean "weight" instead of "wieght"?'),
    ],
    ids=["an unknown flag", "a config file that is not there", "a misspelt field"],
)
def test_a_wrong_flag_is_told_in_one_line(flags_given, told, tmp_path, capsys, config_flag, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text("from ncfair_jax.recipes import base_config as get_config\n", encoding="utf-8")
    argv = ["train.py", *(flag.format(file=file) for flag in flags_given)]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit):
        launcher.parse_flags(argv)
    assert capsys.readouterr().err == f"error: {told}; --helpshort lists the flags\n"


def test_a_warning_is_its_text_without_thread_and_line_of_code(config_flag):
    launcher.parse_flags(["train.py"])
    record = makeLogRecord({"levelname": "WARNING", "msg": "%d rows are malformed", "args": (3,)})
    assert logging.get_absl_handler().format(record) == "WARNING: 3 rows are malformed"


def test_ctrl_c_while_a_command_imports_is_one_line(tmp_path):
    (tmp_path / "jax.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")  # takes its time
    command = [sys.executable, str(ROOT / "launch" / "report.py"), "run"]
    env, pipe = environment(path=str(tmp_path)), subprocess.PIPE
    process = subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "stopped by Ctrl-C while starting; the same command goes on from there\n"
