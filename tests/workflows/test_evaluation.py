"""What an evaluation measures, on latents of which the answer is known."""

import numpy as np
import pytest

from xlatent.core.errors import ParameterError, XlatentError
from xlatent.core.latents import LatentTable
from xlatent.science import classifier_training, information
from xlatent.workflows.evaluation import classification, inputs, sections

pytest.importorskip("sklearn")
KINDS = ("AGN", "HMXB", "YSO")
EACH = 40


@pytest.fixture(scope="module", autouse=True)
def small_machines():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier_training, "_LANDMARKS", 40)
        patch.setattr(classification, "_N_TREES", 20)
        patch.setattr(information, "N_PERMUTATIONS", 40)
        yield


@pytest.fixture(scope="module")
def make(latent_table):
    """Sources of three classes a distance apart in z0 and z1, of which hardness ratios show the first alone."""

    def made(apart=6.0, each=EACH, kinds=KINDS, shuffle=False, flags="", **columns):
        rng = np.random.default_rng(1)
        classes = np.repeat(kinds, each)
        z = 0.5 * rng.standard_normal((len(classes), 8))
        z[:, 0] += apart * (np.arange(len(kinds)) == 0).repeat(each)
        z[:, 1] += apart * (np.arange(len(kinds)) == 1).repeat(each)
        ratio = np.tanh(0.2 * z[:, 0])
        own = {name: ratio for name in ("hard_hm", "hard_hs", "hard_ms")}
        own |= {f"{name}_{end}": ratio for name in list(own) for end in ("lolim", "hilim")}
        table = latent_table(z, flags=[flags] * len(z), **own)
        if shuffle:
            rng.shuffle(classes)
        more = {name: make_column(z, rng) for name, make_column in columns.items()}
        joined = LatentTable({name: table[name] for name in table.colnames} | more, table.meta)
        ratios = {inputs.HARDNESS: inputs.hardness_ratios(joined)}
        return inputs.Dataset("made", table, joined, tuple(more), classes.astype(str), ratios)

    return made


def row(table, **wanted):
    (found,) = [row for row in table if all(row[name] == value for name, value in wanted.items())]
    return found


def filled(fill, *arguments, **more):
    return sections.run_section(sections.Section("key", "title"), lambda section: fill(*arguments, section, **more))


def test_classes_that_are_apart_are_found_and_their_baseline_is_not(make):
    section = filled(sections.cluster_section, make(), seed=0)
    table = section.table("scores")
    whole = row(table, of="z", method="mixture, BIC", task="3 classes")
    assert whole["balanced accuracy"] > 0.97 and whole["adjusted Rand index"] > 0.9
    assert whole["balanced accuracy_lolim"] <= whole["balanced accuracy"] <= whole["balanced accuracy_hilim"]
    # Ratios tell AGN from the others but not these from one another.
    assert row(table, of="hardness ratios", task="3 classes")["balanced accuracy"] < 0.9
    assert row(table, of="z", method="mixture, BIC", task="AGN against compact")["balanced accuracy"] > 0.97


@pytest.mark.slow
def test_classes_that_are_apart_are_recognised(make):
    section = filled(classification.classification_section, make(), seed=0)
    z = row(section.table("scores"), **{"from": "z"})
    assert z["balanced accuracy"] > 0.97 and z["AGN against compact"] > 0.97
    assert row(section.table("scores"), **{"from": "hardness ratios"})["balanced accuracy"] < 0.9
    assert list(section.table("by_class")["sources"]) == [EACH] * 3
    assert np.allclose(np.diag(section.values["confusion"]["z"]), 1.0, atol=0.05)
    assert np.allclose(section.values["confusion"]["z"].sum(axis=1), 1.0)


@pytest.mark.slow
def test_shuffled_labels_are_guessed(make):
    section = filled(classification.classification_section, make(shuffle=True), seed=0)
    z = row(section.table("scores"), **{"from": "z"})
    spread = np.sqrt(1 / 3 * 2 / 3 / (3 * EACH))
    assert abs(z["balanced accuracy"] - 1 / 3) < 3.5 * spread
    assert z["coverage"] > 0.8 and z["size of set"] > 2
    clusters = filled(sections.cluster_section, make(shuffle=True), seed=0).table("scores")
    assert abs(row(clusters, of="z", method="mixture, BIC", task="3 classes")["adjusted Rand index"]) < 0.05


def test_the_faint_train_and_are_not_scored(make):
    bright = make(significance=lambda z, rng: np.where(np.arange(len(z)) % 2, 9.0, 2.0))
    sample = classification.select_labelled(bright)
    assert len(sample.classes) == 3 * EACH and sample.bright.sum() == 3 * EACH / 2


@pytest.mark.slow
def test_a_class_of_two_is_left_out_with_a_word(make):
    data = make()
    classes = data.classes.copy()
    classes[:2] = "CV"
    data = inputs.Dataset(data.name, data.latents, data.joined, data.added, classes, data.baselines)
    section = filled(classification.classification_section, data, seed=0)
    assert any("left out: CV (2)" in note for note in section.notes)
    assert "CV" not in section.values["names"] and len(section.values["names"]) == 3


def test_what_z_says_of_columns(make):
    data = make(
        powlaw_gamma=lambda z, rng: 2.0 * z[:, 1] + 1.0,
        bb_kt=lambda z, rng: rng.standard_normal(len(z)),
        flux_aper_b=lambda z, rng: np.ones(len(z)),
        other=lambda z, rng: z[:, 0],
    )
    section = filled(sections.regression_section, data, seed=0)
    table = section.table("r2")
    assert row(table, target="powlaw_gamma", of="z")["linear"] > 0.99
    assert row(table, target="powlaw_gamma", of="hardness ratios")["linear"] < 0.9
    assert row(table, target="bb_kt", of="z")["linear"] < 0.2
    assert "other" not in table["target"] and "flux_aper_b" not in table["target"]
    assert any("flux_aper_b is 1.0 everywhere" in note for note in section.notes)


def test_variability_that_z_knows_and_that_it_does_not(make):
    data = make(
        var_prob_b=lambda z, rng: 1.0 / (1.0 + np.exp(-z[:, 0])),
        P_intra=lambda z, rng: rng.random(len(z)),
    )
    section = filled(sections.information_section, data, seed=0)
    table = section.table("information")
    assert row(table, column="var_prob_b", of="z")["q"] < 0.01
    assert row(table, column="P_intra", of="z")["q"] > 0.01
    assert any("Sensitivity" in note and "nat" in note for note in section.notes)


def test_missing_values_and_ten_rows(make):
    data = make(each=4, powlaw_gamma=lambda z, rng: z[:, 0])
    for fill in (
        classification.classification_section,
        sections.regression_section,
        sections.outlier_section,
        sections.accretion_section,
    ):
        (note,) = [note for note in filled(fill, data, seed=0).notes if note.startswith("Left out")]
        assert note.count(".") < 4 and "Error" not in note
    holes = make(powlaw_gamma=lambda z, rng: np.where(np.arange(len(z)) < 60, np.nan, z[:, 1]))
    assert row(filled(sections.regression_section, holes, seed=0).table("r2"), of="z")["n_sources"] == 60


@pytest.mark.parametrize(
    "flags, origin", [("from_fluxes,poor_fit", "fluxes"), ("from_ratios", "ratios"), ("", "unknown")]
)
def test_the_heading_says_where_latents_come_from(make, flags, origin):
    data = make(flags=flags)
    assert data.origin == origin
    section = filled(sections.contents_section, data)
    assert section.tables and all(inputs.ORIGINS[origin] in table.caption for table in section.tables)
    assert any("principal components" in note for note in section.notes) == (origin != "unknown")


def test_principal_components_find_the_one_number_that_differs(latent_table):
    rng = np.random.default_rng(0)
    truth = rng.uniform(-1, 1, 2000)
    x = np.linspace(-1, 1, 40)
    counts = rng.poisson(50 * np.exp(truth[:, None] * x)).astype(float)
    table = inputs.principal_components(counts, counts, latent_table(np.zeros((2000, 8))))
    assert abs(np.corrcoef(table.z[:, 0], truth)[0, 1]) > 0.97
    # The others hold noise of the stated size.
    assert np.allclose(table.z[:, 2:].std(axis=0), table.z_err[:, 2:].mean(axis=0), rtol=0.3)


def test_reconstruction_counts_standard_deviations(latent_table):
    excess = np.array([-1.0, 0.0, 1.0, 2.0, 9.0])
    table = latent_table(np.zeros((5, 8)), cstat=100 + 10 * excess, cstat_expected=[100.0] * 5, cstat_sigma=[10.0] * 5)
    section = filled(sections.reconstruction_section, {"z": table}, "here")
    median, share = section.table("statistic")
    assert median["value"] == 1.0 and share["value"] == 0.8


def test_single_spectra_get_the_class_of_their_place(make, latent_table):
    data = make(apart=6.0)
    z = np.zeros((3, 8))
    z[0, 0] = z[1, 1] = 6.0
    ratio = {name: np.tanh(0.2 * z[:, 0]) for name in ("hard_hm", "hard_hs", "hard_ms")}
    spectra = latent_table(z, counts=[100.0] * 3, **ratio)
    kinds = {"source 0": "AGN (quasar)"}
    section = filled(classification.single_spectra_section, spectra, kinds, data, None, seed=0)
    table = section.table("spectra")
    assert [str(name) for name in table["class"]] == list(KINDS)
    assert [str(names).split(", ")[0] for names in table["nearest"]] == list(KINDS)
    assert table["kind"][0] == "AGN (quasar)" and table["kind"][1] == ""


def test_a_labelled_source_does_not_judge_itself(make, latent_table):
    data = make()
    rows = {name: data.latents[name] for name in data.latents.colnames}
    sky = {"ra": 10.0 + np.arange(len(data.latents)), "dec": np.zeros(len(data.latents))}
    table = LatentTable(rows | sky, data.latents.meta)
    data = inputs.Dataset("made", table, table, (), data.classes, data.baselines)
    spectra = latent_table(
        np.zeros((1, 8)), counts=[9.0], ra=[12.0], dec=[0.001], hard_hm=[0.0], hard_hs=[0.0], hard_ms=[0.0]
    )
    section = filled(classification.single_spectra_section, spectra, {}, data, None, seed=0)
    assert any(f"{3 * EACH - 1} labelled sources train" in note for note in section.notes)


def test_a_section_that_cannot_be_done_is_a_sentence():
    def fail(section):
        raise ParameterError("there is nothing")

    section = filled(fail)
    assert section.notes == ["Left out: there is nothing."] and section.left_out
    assert not filled(lambda section: section.notes.append("done")).left_out
    with pytest.raises(ZeroDivisionError):
        filled(lambda section: 1 / 0)
    assert issubclass(ParameterError, XlatentError)
