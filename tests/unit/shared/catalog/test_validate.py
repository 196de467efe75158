"""A bad catalog is refused with file, key, value and remedy; all faults at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from headgate.shared.catalog.catalog import load
from headgate.shared.catalog.faults import CatalogErrors
from headgate.shared.errors import CatalogError

NEW = """
[models."x"]
provider = "openai"
class = "fast"
context_tokens = 1000
max_output_tokens = 100
source = "a test"
checked = 2026-11-20
"""

OPTIONAL = ("providers.custom.api_key_optional", "(not shown")

#: (the overlay, the key, the value as shown, a part of the remedy)
FAULTS = [
    # budgets
    ("budget.usd_per_day = 10", "budget.usd_per_day", "10", 'write it as a string, such as "10"'),
    ('budget.usd_per_day = "-1"', "budget.usd_per_day", "'-1'", "give USD, 0 to 1000000"),
    ('budget.usd_per_month = "1e3"', "budget.usd_per_month", "'1e3'", "give USD"),
    ('budget.usd_a_day = "1"', "budget.usd_a_day", "'1'", "did you mean usd_per_day?"),
    ("tenants.a.budget.hard = 1.0", "tenants.a.budget.usd_per_day", "(missing)", "no amount"),
    (
        'users."a/b".budget = {usd_per_day = "1", sof = 1.0}',
        'users."a/b".budget.sof',
        "1.0",
        "did you mean soft?",
    ),
    (
        'budget = {usd_per_day = "1", soft = 1.3}',
        "budget.soft",
        "1.3",
        "soft (1.3) must not be above hard (1.2)",
    ),
    ('budget = {usd_per_day = "1", alerts = [0.0]}', "budget.alerts[0]", "0.0", "0.01"),
    ('budget = {usd_per_day = "1", at_soft = "gpt-0"}', "budget.at_soft", "'gpt-0'", "no such"),
    ("budget = 10", "budget", "10", "give a table: [budget]"),
    # unknown keys
    ("colour = 1", "colour", "1", "unknown key; use one of providers, models, pools, tiers"),
    ("[modles]", "modles", "{}", "did you mean models?"),
    ("[templates.a]", "templates.a", "{'name': 'a'}", "exactly one of prompt and messages"),
    ('templates.a.prompt = "{"', "templates.a.prompt", "'{'", "single brace in '{'"),
    ('templates.a.prompt = "{a.b}"', "templates.a.prompt", "'{a.b}'", "single brace"),
    ('templates.a.prompt = "{a!r:>9}"', "templates.a.prompt", "'{a!r:>9}'", "single brace"),
    ('templates.a = { prompt = "a", modle = "b" }', "templates.a.modle", "'b'", "mean model?"),
    ('templates.a = { prompt = "a", model = "b" }', "templates.a.model", "'b'", "no such model"),
    ('models."gpt-4o".timeout = 5', 'models."gpt-4o".timeout', "5", "did you mean timeout_s?"),
    ('models."gpt-4o".name = "y"', 'models."gpt-4o".name', "'y'", "unknown key"),
    ('pools."openai/gpt-4o".rpmm = 5', 'pools."openai/gpt-4o".rpmm', "5", "did you mean rpm?"),
    ("tiers.free.rpx = 1", "tiers.free.rpx", "1", "did you mean rpm?"),
    (
        'tiers.free.models."gpt-4o".lockout_s = 1',
        'tiers.free.models."gpt-4o".lockout_s',
        "1",
        "unknown key; use one of rpm, tpm, rpd",
    ),
    ('prices."gpt-4o" = {input = "1", out = "2"}', 'prices."gpt-4o".out', "'2'", "unknown key"),
    ('providers.openai.url = "http://a"', "providers.openai.url", "'http://a'", "unknown key"),
    # names of what there is not
    (
        'models."gpt-4o".provider = "opnai"',
        'models."gpt-4o".provider',
        "'opnai'",
        "no such provider; use one of openai, anthropic",
    ),
    (
        'models."gpt-4o".fallback = ["claude-haiku-4-5", "gpt5"]',
        'models."gpt-4o".fallback[1]',
        "'gpt5'",
        "no such model",
    ),
    ('pools."openai/gtp-4o".rpm = 1', 'pools."openai/gtp-4o"', "'openai/gtp-4o'", "gpt-4o?"),
    ('pools."gpt-4o".rpm = 1', 'pools."gpt-4o"', "'gpt-4o'", "give provider/pool"),
    ('prices."gpt4o".input = "1"', 'prices."gpt4o"', "'gpt4o'", "did you mean gpt-4o?"),
    ('tiers.a.models."g".rpm = 1', 'tiers.a.models."g"', "'g'", "no such model"),
    # chains
    (
        'models."gpt-4o".fallback = ["gpt-4o"]',
        'models."gpt-4o".fallback[0]',
        "'gpt-4o'",
        "form a circle: gpt-4o -> gpt-4o",
    ),
    (
        'models."gpt-4o".fallback = ["gpt-4o-mini"]',
        'models."gpt-4o".fallback[0]',
        "'gpt-4o-mini'",
        "form a circle: gpt-4o-mini -> gpt-4o -> gpt-4o-mini; remove one of them",
    ),
    (
        'models."gpt-4o".fallback = ["static:no", "gpt-5.4"]',
        'models."gpt-4o".fallback[1]',
        "'gpt-5.4'",
        "is never reached",
    ),
    ('models."gpt-4o".fallback = ["static:"]', 'models."gpt-4o".fallback[0]', "'static:'", "after"),
    (
        'models."gpt-4o".fallback = ["mistral-embed"]',
        'models."gpt-4o".fallback[0]',
        "'mistral-embed'",
        "cannot replace each other",
    ),
    (
        'models."mistral-embed".fallback = ["static:a"]',
        'models."mistral-embed".fallback[0]',
        "'static:a'",
        "cannot replace vectors",
    ),
    # limits
    ('models."gpt-4o".timeout_s = 0', 'models."gpt-4o".timeout_s', "0", "a number above 0"),
    ('models."gpt-4o".timeout_s = inf', 'models."gpt-4o".timeout_s', "inf", "finite"),
    ('models."gpt-4o".timeout_s = nan', 'models."gpt-4o".timeout_s', "nan", "finite"),
    ('models."gpt-4o".context_tokens = -1', 'models."gpt-4o".context_tokens', "-1", "at least 1"),
    (
        'models."gpt-4o".context_tokens = 999999999999',
        'models."gpt-4o".context_tokens',
        "999999999999",
        "at most 100000000",
    ),
    (
        'models."gpt-4o".max_output_tokens = 128001',
        'models."gpt-4o".max_output_tokens',
        "128001",
        "give 1 to context_tokens (128000)",
    ),
    (
        'models."mistral-embed".max_output_tokens = 5',
        'models."mistral-embed".capabilities',
        "['embeddings']",
        "has no max_output_tokens",
    ),
    ('models."gpt-4o".max_attempts = 0', 'models."gpt-4o".max_attempts', "0", "at least 1"),
    (
        'models."gpt-4o".backoff_s = 9\nmodels."gpt-4o".backoff_max_s = 2',
        'models."gpt-4o".backoff_s',
        "9.0",
        "give at most backoff_max_s (2)",
    ),
    ('pools."openai/gpt-4o".rpm = 0', 'pools."openai/gpt-4o".rpm', "0", "at least 1"),
    ('pools."openai/gpt-4o".burst_s = 0.0', 'pools."openai/gpt-4o".burst_s', "0.0", "above 0"),
    ("tiers.free.lockout_s = -5", "tiers.free.lockout_s", "-5", "at least 0"),
    ('prices."gpt-4o".input = "-1"', 'prices."gpt-4o".input', "'-1'", "0 to 1000000"),
    ('prices."gpt-4o".input = "NaN"', 'prices."gpt-4o".input', "'NaN'", "0 to 1000000"),
    ('prices."gpt-4o".input = "1.0000001"', 'prices."gpt-4o".input', "'1.0000001'", "six digits"),
    ('prices."gpt-4o".input = "cheap"', 'prices."gpt-4o".input', "'cheap'", "USD per million"),
    ('pools."openai/gpt-4o".rpm = -3', 'pools."openai/gpt-4o".rpm', "-3", "for no limit"),
    ("tiers.free.rpm = 0", "tiers.free.rpm", "0", "leave the key out for no limit"),
    ("tiers.free.rpm = 10000000000", "tiers.free.rpm", "10000000000", "at most 100000000"),
    ("tiers.free.rpm = 9.5", "tiers.free.rpm", "9.5", "give a whole number"),
    ("tiers.free.lockout_after = 0", "tiers.free.lockout_after", "0", "at least 1"),
    ("tenants.acme.weight = 0", "tenants.acme.weight", "0", "at least 0.01"),
    ("tenants.acme.weight = 1001", "tenants.acme.weight", "1001", "at most 1000"),
    ("tenants.acme.weight = nan", "tenants.acme.weight", "nan", "finite"),
    ("tenants.acme.concurrent = -1", "tenants.acme.concurrent", "-1", "at least 1"),
    ("limits.tpm = 0", "limits.tpm", "0", "at least 1"),
    ("limits.burst_s = 0", "limits.burst_s", "0", "a number above 0"),
    ("providers.openai.limits.rpm = 0", "providers.openai.limits.rpm", "0", "at least 1"),
    # callers
    ("tenants.acme.rpn = 1", "tenants.acme.rpn", "1", "did you mean rpm?"),
    ("tenants.acme.tier = 'gold'", "tenants.acme.tier", "'gold'", "use one of free, pro, expert"),
    ("tenants.'*'.tier = 'fre'", 'tenants."*".tier', "'fre'", "did you mean free?"),
    ("tenants.'a b'.tier = 'x'", 'tenants."a b".tier', "'x'", "no such tier"),
    ("tenants.acme = 5", "tenants.acme", "5", "give a table"),
    ("users.bob.rpm = 1", "users.bob", "'bob'", 'write "tenant/user"'),
    ("users.'acme/'.rpm = 1", 'users."acme/"', "'acme/'", 'write "tenant/user"'),
    ("users.'acme/*'.rpm = 1", 'users."acme/*"', "'acme/*'", "use a tier"),
    ("users.'acme/u'.tier = 'x'", 'users."acme/u".tier', "'x'", "no such tier"),
    ("users.'acme/u'.weight = 2", 'users."acme/u".weight', "2", "unknown key; use one of rpm"),
    ("tiers.'a/b'.rpm = 1", 'tiers."a/b"', "'a/b'", "give a name that fits"),
    ("limits.weight = 1", "limits.weight", "1", "unknown key; use one of rpm, tpm"),
    ("limits = 5", "limits", "5", "give a table: [limits]"),
    ("providers.openai.limits.rp = 1", "providers.openai.limits.rp", "1", "did you mean rpm?"),
    # types
    ("models = 1", "models", "1", "give a table: [models.<name>]"),
    ('models."gpt-4o" = 1', 'models."gpt-4o"', "1", "give a table"),
    (
        'models."gpt-4o".timeout_s = "5"',
        'models."gpt-4o".timeout_s',
        "'5'",
        "give a number without",
    ),
    (
        'models."gpt-4o".timeout_s = true',
        'models."gpt-4o".timeout_s',
        "True",
        "give a number without",
    ),
    ('models."gpt-4o".max_attempts = 1.5', 'models."gpt-4o".max_attempts', "1.5", "whole number"),
    ('models."gpt-4o".fallback = "gpt-5"', 'models."gpt-4o".fallback', "'gpt-5'", "give a list"),
    ('models."gpt-4o".fallback = [1]', 'models."gpt-4o".fallback[0]', "1", "in quotes"),
    ('models."gpt-4o".checked = "soon"', 'models."gpt-4o".checked', "'soon'", "2026-11-20"),
    ('models."gpt-4o".class = "very fast"', 'models."gpt-4o".class', "'very fast'", "a name"),
    ('models."gpt-4o".capabilities = ["tool"]', 'models."gpt-4o".capabilities', "'tool'", "tools?"),
    ('prices."gpt-4o".input = 0.15', 'prices."gpt-4o".input', "0.15", 'a string, such as "0.15"'),
    ('providers.openai.dialect = "opanai"', "providers.openai.dialect", "'opanai'", "openai?"),
    ('providers.openai.base_url = "api"', "providers.openai.base_url", "'api'", "https://"),
    (
        'providers.openai.api_key_env = ["A B"]',
        "providers.openai.api_key_env[0]",
        "(not shown",
        "name",
    ),
    ('tiers.free.models."gpt-4o" = 3', 'tiers.free.models."gpt-4o"', "3", "give a table"),
    ("tiers.free.models = 3", "tiers.free.models", "3", "give a table"),
    ('providers.custom.api_key_optional = "no"', *OPTIONAL, "give true or false"),
    ("providers.anthropic.responses = true", "providers.anthropic.responses", "True", "leave it"),
    # required keys, and names
    (NEW.replace('provider = "openai"', ""), 'models."x".provider', "(missing)", "is required"),
    (NEW.replace('source = "a test"', ""), 'models."x".source', "(missing)", "is required"),
    (NEW.replace("max_output_tokens = 100", ""), 'models."x".max_output_tokens', "(missing)", "1"),
    (NEW.replace('"x"', '"a/b"'), 'models."a/b"', "'a/b'", "give a name that fits"),
    (NEW.replace('"x"', '"auto"'), 'models."auto"', "'auto'", "auto means routing"),
    ('providers.p.base_url = "http://a"', "providers.p.dialect", "(missing)", "is required"),
]


@pytest.mark.parametrize(("text", "key", "value", "remedy"), FAULTS)
def test_a_fault_names_file_key_value_and_remedy(
    tmp_path: Path, text: str, key: str, value: str, remedy: str
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load(file)
    error = caught.value
    assert not isinstance(error, CatalogErrors), str(error)
    assert str(error).startswith(f"{file}: {key}")
    assert value in str(error)
    assert remedy in error.remedy
    assert error.file == str(file)


def test_all_faults_are_reported_together(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text(
        'models."gpt-4o".timeout_s = -1\nmodels."gpt-4o".colour = 1\n'
        'models."gpt-4.1".fallback = ["nothing"]\npools."openai/gpt-4.1".rpm = "many"\n'
        "[templates.a]\n",
        encoding="utf-8",
    )
    with pytest.raises(CatalogErrors) as caught:
        load(file)
    assert {error.key for error in caught.value.errors} == {
        'models."gpt-4o".timeout_s',
        'models."gpt-4o".colour',
        'models."gpt-4.1".fallback[0]',
        'pools."openai/gpt-4.1".rpm',
        "templates.a",
    }
    assert str(caught.value).count(str(file)) == len(str(caught.value).splitlines()) == 5


def test_a_circle_is_reported_once_where_the_user_has_closed_it(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('models."command-r7b".fallback = ["gemini-2.5-flash"]\n', encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load(file)
    assert not isinstance(caught.value, CatalogErrors), str(caught.value)
    assert caught.value.key == 'models."command-r7b".fallback[0]'
    assert "command-r7b -> gemini-2.5-flash" in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "key", "remedy"),
    [
        (b'a = 1\nb = = 2\n[models."x"]\n', "line 2", "this is not TOML"),
        (b'a = 1\n[models."x"', "line 2", "this is not TOML"),
        (b'a = 1\na = "twice"\n', "line 2", "this is not TOML"),
        (b"a = 1\nb = '\xff'\n", "line 2", "save the file as UTF-8"),
        (b"a = 1\n\x00\n", "line 2", "this is not TOML"),
    ],
)
def test_a_file_that_is_not_toml_is_refused_with_the_line(
    tmp_path: Path, content: bytes, key: str, remedy: str
) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(content)
    with pytest.raises(CatalogError) as caught:
        load(file)
    assert str(caught.value).startswith(f"{file}: {key}: ")
    assert remedy in caught.value.remedy


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="there is no such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(CatalogError, match="this is a folder"):
        load(tmp_path)


def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_bytes(b'\xef\xbb\xbf[pools."openai/gpt-4o"]\r\nrpm = 5\r\n')
    assert load(file).pools["openai/gpt-4o"].rpm == 5


@pytest.mark.parametrize(
    "line",
    [
        'api_key = "sk-verysecret"',
        'api_key_env = "sk-verysecret"',
        'api_key_env = ["OPENAI_API_KEY", "verysecret"]',
        'api_key_env = "sk-verysecret',
        'secret_KEY = {a = "sk-verysecret"}',
    ],
)
def test_a_key_written_into_the_catalog_by_mistake_is_never_shown(
    tmp_path: Path, line: str
) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f"[providers.openai]\n{line}\n", encoding="utf-8")
    with pytest.raises(CatalogError) as caught:
        load(file)
    assert "verysecret" not in str(caught.value)
    assert "verysecret" not in repr(caught.value)
