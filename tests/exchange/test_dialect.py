"""A dialect's rule for a key: by its name, by how it begins, or none."""

from kit.exchange import from_lora, sd_scripts_rules
from kit.exchange.dialect import Dialect, no_effect


def test_a_rule_by_name_counts_more_than_one_by_prefix_and_the_first_prefix_more_than_the_next():
    def made(told):
        return lambda key: lambda value, entries: no_effect(f"{told} {key}")

    dialect = Dialect(
        "of a test",
        names={},
        known={},
        rules={"net.own": lambda value, entries: no_effect("by name")},
        prefixes={"net.": made("net"), "n": made("n")},
    )

    def told(key):
        rule = dialect.rule(key)
        return rule and rule(1, {}).told

    assert told("net.own") == "by name"
    assert told("net.other") == "net net.other"
    assert told("name") == "n name"
    assert told("other") is None


def test_arguments_of_a_network_and_of_the_launcher_have_rules_and_plain_settings_none():
    dialect = sd_scripts_rules.dialect()
    taken = dialect.rule("network_args.conv_dim")(4, {})
    assert taken.changes == {"conv_dim": 4}
    assert dialect.rule("accelerate.mixed_precision")("bf16", {}).changes == {
        "mixed_precision": "bf16"
    }
    assert dialect.rule("network_alpha") is None


def test_metadata_have_a_rule_for_every_key_and_none_is_the_default():
    rule = from_lora.dialect().rule("ss_clip_skip")
    assert rule(None, {}).told.startswith("None:")
    assert rule("2", {}) is None
    assert from_lora.dialect().rule("ss_network_args.conv_dim")("4", {}).changes == {"conv_dim": 4}
