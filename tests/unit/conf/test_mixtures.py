"""A mixture of general and domain sources can be given for any stage, and replaces the stage's."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
from hydra.core.config_store import ConfigStore
from hypothesis import given
from hypothesis import strategies as st

from conf.schema import check_same_run, register, to_yaml
from conf.suggest import CONF, GROUP_ROOTS, check_overrides
from data.rows.curriculum_config import weights_of_sources
from tests.helpers.runs import configure

GENERAL = {"general_en": 0.55, "general_zh": 0.3, "arithmetic": 0.15}
DOMAIN = {"geo_en": 0.65, "geo_zh": 0.35}
KEY = "curriculum.stages.adaptation.weights"


def typed(*arguments):
    """The configuration of a command line, which is checked as every command checks it."""
    register()
    return configure(*check_overrides("train", list(arguments)))


def weights(config):
    return {name: stage.weights for name, stage in config.curriculum.stages.items()}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("{general_en: 3, geo_en: 1}", {"general_en": 3, "geo_en": 1}),
        ("{geo_zh: 1}", {"geo_zh": 1}),
        ("geo_zh", {"geo_zh": 1}),
        ("{geo_en:3,geo_zh:1.5}", {"geo_en": 3, "geo_zh": 1.5}),
        ("general", GENERAL),
        ("domain", DOMAIN),
        ("{domain: 7}", DOMAIN),
        (
            "{general: 0.9, domain: 0.1}",
            {
                "general_en": 0.495,
                "general_zh": 0.27,
                "arithmetic": 0.135,
                "geo_en": 0.065,
                "geo_zh": 0.035,
            },
        ),
        (
            "{general: 1, geo_en: 1}",
            {"general_en": 0.55, "general_zh": 0.3, "arithmetic": 0.15, "geo_en": 1},
        ),
        # A source that is named and in a mixture too has both parts.
        ("{domain: 0.5, geo_zh: 0.5}", {"geo_en": 0.325, "geo_zh": 0.675}),
    ],
)
@pytest.mark.parametrize("stage", ["adaptation", "specialization"])
def test_a_typed_mixture_replaces_that_of_the_stage(stage, value, expected):
    found = weights(typed("+experiment=tspt", f"curriculum.stages.{stage}.weights={value}"))
    assert found.pop(stage) == expected
    (other,) = found.items()
    assert other in (("adaptation", GENERAL), ("specialization", DOMAIN))


@pytest.mark.parametrize("curriculum", sorted(x.stem for x in (CONF / "curriculum").glob("*.yaml")))
def test_every_curriculum_takes_a_mixture_for_each_stage(curriculum):
    data = "sample_chat" if curriculum.startswith("sft") else "sample"
    base = (f"curriculum={curriculum}", f"data={data}")
    config = configure(*base)
    source = next(iter(config.data.domain))
    for name in config.curriculum.stages:
        changed = typed(*base, f"curriculum.stages.{name}.weights={{{source}: 2}}")
        assert weights(changed) == weights(config) | {name: {source: 2.0}}
        assert changed.data == config.data  # nobody else who refers to a mixture sees it
        assert changed.folder != config.folder


def test_several_stages_at_once():
    config = typed(
        "+experiment=tspt",
        "curriculum.stages.adaptation.weights={general: 0.75, domain: 0.25}",
        "curriculum.stages.specialization.weights={domain: 0.9, general_en: 0.1}",
        "curriculum.stages.specialization.replay.share=0",
    )
    assert weights(config)["adaptation"]["geo_en"] == 0.1625
    assert weights(config)["specialization"] == {
        "geo_en": 0.585,
        "geo_zh": 0.315,
        "general_en": 0.1,
    }


@pytest.fixture
def own_curriculum(tmp_path, monkeypatch):
    """A curriculum of the user's own, whose stage has a mapping; not in conf/, which is shared."""
    stages = {"adaptation": {"tokens": 4096, "weights": {"general_en": 1, "geo_en": 1}}}
    (tmp_path / "curriculum").mkdir()
    (tmp_path / "curriculum" / "of_this_test.yaml").write_text(json.dumps({"stages": stages}))
    monkeypatch.setattr("conf.suggest.GROUP_ROOTS", (*GROUP_ROOTS, tmp_path))
    ConfigStore.instance().store("of_this_test", {"stages": stages}, group="curriculum")
    yield "of_this_test"
    del ConfigStore.instance().repo["curriculum"]["of_this_test.yaml"]


@pytest.mark.parametrize(
    ("typed_value", "expected"),
    [
        ("{general_en: 3}", {"general_en": 3}),  # and not geo_en as well
        ("{geo_zh: 2, domain: 1}", {"geo_zh": 2.35, "geo_en": 0.65}),
        ("general", GENERAL),
    ],
)
def test_nothing_of_a_mapping_in_a_file_stays(own_curriculum, typed_value, expected):
    found = weights(typed(f"curriculum={own_curriculum}", f"{KEY}={typed_value}"))["adaptation"]
    assert found == pytest.approx(expected)
    one = weights(typed(f"curriculum={own_curriculum}", f"{KEY}.geo_en=5"))["adaptation"]
    assert one == {"general_en": 1, "geo_en": 5}


def test_a_typed_mixture_of_the_data_set_replaces_it_too():
    config = typed("+experiment=tspt", "data.domain={geo_zh: 1, general_en: 1}")
    assert config.data.domain == {"geo_zh": 1, "general_en": 1}
    assert weights(config)["specialization"] == {"geo_zh": 1, "general_en": 1}
    more = typed("+experiment=tspt", "+data.domain.general_en=0.1")
    assert more.data.domain == DOMAIN | {"general_en": 0.1}


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_source_cannot_be_put_into_what_a_name_stands_for(sign):
    """It would land in the mixture of the data set, and so in every stage."""
    with pytest.raises(ValueError, match=r"no such option: .*weights\.geo_en"):
        typed("+experiment=tspt", f"{sign}{KEY}.geo_en=0.0886")


def test_a_sweep_over_mixtures(tmp_path):
    arguments = ["+experiment=tspt", f"{KEY}={{general: 1}},{{general: 0.5, domain: 0.5}}", "-m"]
    register()
    *read, flag = check_overrides("train", arguments)
    assert flag == "-m"
    assert [x for x in read if x.startswith(f"{KEY}=")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{moon: 1}", "weights.moon: not a source or mixture; data.sources has general_en, "),
        ("{general: 1, moon: 0}", "weights.moon: not a source or mixture"),
        ("moon", "weights.moon: not a source or mixture; .* the mixtures are general, domain"),
        ("{general: -0.5, domain: 1}", r"weights.general: -0\.5; must be finite, 0 or more"),
        ("{general: nan}", "weights.general: nan; must be finite"),
        ("{general: 1, domain: inf}", "weights.domain: inf; must be finite"),
        ("{general: 0, domain: 0}", "weights: .*; at least one must be positive"),
        ("{}", "weights: {}; at least one must be positive"),
        ("{general: x}", "weights.general: 'x'; must be a number"),
        ("{general: true}", "weights.general: True; must be a number"),
        ("{general: null}", "weights.general: None; must be a number"),
        ("{replay: 1}", "a source cannot be named 'replay'"),
        ("[general,domain]", "give shares by name, as in curriculum.stages.adaptation.weights="),
        ("0.5", r"weights: 0\.5; give shares by name"),
        ("null", "weights: None; give shares by name"),
    ],
)
def test_what_is_no_mixture_is_refused_with_field_and_value(value, words):
    with pytest.raises(ValueError, match=words):
        typed("+experiment=tspt", f"{KEY}={value}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["data.domain={geo_en: 0, geo_zh: 0}", f"{KEY}=domain"],
            "adaptation.weights.domain: nothing in data.domain=.* is positive",
        ),
        (["+data.general.geo_en=-1"], r"data\.general\.geo_en=-1\.0: a weight is finite"),
        (["+data.domain.general_en=nan"], r"data\.domain\.general_en=nan: a weight is finite"),
    ],
)
def test_mixtures_of_the_data_set_are_checked(overrides, words):
    with pytest.raises(ValueError, match=words):
        typed("+experiment=tspt", *overrides)


def test_a_mixture_that_nobody_uses_may_be_empty():
    config = configure(
        "curriculum=general_only", "data.domain={geo_en: 0, geo_zh: 0}", "data.general.arithmetic=0"
    )
    expected = {"general_en": 0.55, "general_zh": 0.3, "arithmetic": 0.0}
    assert weights(config) == {"adaptation": expected, "continuation": expected}


def test_a_source_with_the_name_of_a_mixture_is_that_source():
    sources, mixtures = {"general": "g", "mine": "m"}, {"general": {"mine": 1.0}, "domain": {}}
    assert weights_of_sources("w", {"general": 2}, sources, mixtures) == {"general": 2.0}
    assert weights_of_sources("w", "general", sources, mixtures) == {"general": 1.0}


def test_resolving_is_done_once_and_read_back(tmp_path):
    config = typed("+experiment=tspt", f"{KEY}={{general: 0.9, domain: 0.1}}")
    again = replace(config)
    assert again == config
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    check_same_run(path, again)
    assert "general: 0.9" not in path.read_text()  # what is written names sources
    by_hand = ", ".join(f"{k}: {v}" for k, v in weights(config)["adaptation"].items())
    assert typed("+experiment=tspt", f"{KEY}={{{by_hand}}}").folder == config.folder
    assert (
        typed("+experiment=tspt", f"{KEY}=general").folder == configure("+experiment=tspt").folder
    )


def test_rows_follow_the_typed_mixture():
    config = typed(
        "+experiment=tspt_stage1",
        f"{KEY}={{general: 0.75, domain: 0.25}}",
        "curriculum.stages.adaptation.tokens=4096000",
    )
    plan = config.plan()
    read = plan.consumed()
    for mixture, share in ((config.data.general, 0.75), (config.data.domain, 0.25)):
        for source, part in mixture.items():
            assert abs(read[source] - share * part * plan.rows) <= 1


@given(
    shares=st.lists(st.integers(0, 1000), min_size=2, max_size=2).filter(any),
    general=st.lists(st.integers(1, 1000), min_size=2, max_size=2),
    domain=st.lists(st.integers(1, 1000), min_size=2, max_size=2),
)
def test_each_mixture_has_its_share_whatever_its_weights_sum_to(shares, general, domain):
    mixtures = {
        "general": dict(zip("ab", map(float, general), strict=True)),
        "domain": dict(zip("bc", map(float, domain), strict=True)),
    }
    named = dict(zip(("general", "domain"), map(float, shares), strict=True))
    found = weights_of_sources("w", named, "abc", mixtures)
    for source in "abc":
        expected = sum(
            Fraction(share) * Fraction(mixtures[name].get(source, 0)) / sum(map(int, weights))
            for name, share, weights in zip(named, shares, (general, domain), strict=True)
        )
        assert found[source] == pytest.approx(float(expected), rel=1e-12)
