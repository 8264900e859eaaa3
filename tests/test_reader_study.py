"""The reader study: blinding, balance, answers as CSV, readers of known d-prime."""

import dataclasses
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import norm

from course_lib import reader_study as rs

SIDE = 12


def images(n, seed, channels=1):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.random((n, channels, SIDE, SIDE), np.float32)) * 2 - 1
    x[:, :, 0, 0] = -1
    return x


REAL, FAKE = images(30, 0), images(26, 1).clamp(-0.9, 0.9)


@pytest.fixture(params=["rating", "2afc"])
def study(request):
    return rs.make_study(REAL, FAKE, 20, request.param, seed=3)


def chunks(png):
    """[(name, length)] of a PNG's chunks."""
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        found.append((png[at + 4 : at + 8].decode(), length))
        at += 12 + length
    return found


def shown(study):
    return [x.tobytes() for x in study.pixels().reshape(-1, SIDE, SIDE)]


def as_bytes(x):
    return [image.tobytes() for image in rs.to_uint8(x)]


# --- blinding and balance


def test_the_key_is_right(study):
    trials, key = study
    fakes = set(as_bytes(FAKE))
    flat = np.array([x in fakes for x in shown(trials)]).reshape(len(trials), -1)
    if trials.kind == "rating":
        assert (flat[:, 0] == key.generated).all()
    else:
        assert (flat.sum(axis=1) == 1).all()
        assert (flat[:, 1] == key.generated).all()


def test_half_of_the_trials_have_each_truth_and_no_image_comes_twice(study):
    trials, key = study
    assert key.generated.sum() == len(trials) / 2
    assert len(set(shown(trials))) == len(shown(trials))


def test_a_seed_makes_one_study_and_another_seed_another(study):
    trials, key = study
    again = rs.make_study(REAL, FAKE, 20, trials.kind, seed=3)
    other = rs.make_study(REAL, FAKE, 20, trials.kind, seed=4)
    assert again == (trials, key)
    assert other[0].code != trials.code and other[1].truth != key.truth


def test_the_order_says_nothing_about_the_truth():
    # Over many seeds each place holds a generated image half of the time, and the
    # truth of a trial does not follow from the one before.
    truths = [
        rs.make_study(REAL[:5], FAKE[:5], 8, seed=seed)[1].generated
        for seed in range(400)
    ]
    truths = np.array(truths)
    assert np.abs(truths.mean(axis=0) - 0.5).max() < 0.11
    same = (truths[:, 1:] == truths[:, :-1]).mean()
    assert same == pytest.approx(3 / 7, abs=0.04)  # as in any order of 4 and 4


def test_a_png_holds_pixels_alone_and_all_are_of_one_length(study):
    trials, _ = study
    pngs = [png for trial in trials.trials for png in trial]
    for png in pngs:
        assert [name for name, _ in chunks(png)] == ["IHDR", "IDAT", "IEND"]
        assert Image.open(io.BytesIO(png)).info == {}
    assert len({len(png) for png in pngs}) == 1
    smooth = rs.to_png(np.zeros((SIDE, SIDE), np.uint8))
    assert len(smooth) == len(pngs[0])
    assert len(zlib.compress(smooth)) < len(zlib.compress(pngs[0]))  # it could tell


def test_neither_study_nor_key_says_the_truth_when_shown(study):
    trials, key = study
    assert not {"truth", "real", "fake", "generated"} & set(vars(trials))
    for text in (repr(trials), repr(key), str(key), f"{key}"):
        assert str(key.truth) not in text and "generated" not in text
    assert not hasattr(key, "_repr_html_")
    names = {f.name for f in dataclasses.fields(trials)}
    assert names == {"kind", "trials", "code"}


def test_float_and_uint8_images_are_shown_alike():
    floats = rs.make_study(REAL, FAKE, 20, seed=3)
    uint8 = [torch.from_numpy(rs.to_uint8(x))[:, None] for x in (REAL, FAKE)]
    assert rs.make_study(*uint8, 20, seed=3) == floats


def test_colour_is_shown_in_colour():
    trials, _ = rs.make_study(images(4, 5, 3), images(4, 6, 3), 4, seed=0)
    assert trials.pixels().shape == (4, 1, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    "real, fake, n, word",
    [
        (REAL, FAKE, 7, "even number"),
        (REAL, FAKE, 0, "even number"),
        (REAL, FAKE, 100, "of each kind"),
        (REAL, FAKE[:, :, :8, :8], 4, "size and colour"),
        (REAL, images(9, 2, 3), 4, "size and colour"),
        (REAL, (FAKE + 1) / 2, 4, "Bring both"),
        (REAL, 3 * FAKE, 4, r"in \[-1, 1\]"),
        (REAL, FAKE * float("nan"), 4, r"in \[-1, 1\]"),
        (REAL, FAKE[0], 4, "N, C, H, W"),
        (REAL, torch.cat([FAKE, REAL[:1]]), 4, "byte by byte"),
    ],
)
def test_a_study_that_would_give_itself_away_is_refused(real, fake, n, word):
    with pytest.raises(ValueError, match=word):
        rs.make_study(real, fake, n, seed=0)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="choose from rating, 2afc"):
        rs.make_study(REAL, FAKE, 4, "triangle", seed=0)


def test_a_grey_border_is_found_as_a_cue_and_fair_images_have_none():
    fair = rs.find_cues(images(200, 7), images(200, 8))
    assert all(0.4 < cue.value < 0.6 for cue in fair.values())
    framed = images(40, 8)
    framed[:, :, [0, -1]] = framed[:, :, :, [0, -1]] = 0.1
    found = rs.find_cues(images(40, 7), framed)
    assert not found["grey of the border"].holds(0.5)


# --- answers


@pytest.fixture
def answers(study):
    return rs.simulate_reader(study[1], 1.0, seed=5, reader=3)


def test_answers_come_back_from_their_csv(answers, tmp_path):
    path = tmp_path / "answers.csv"
    rs.write_answers(path, answers)
    again = rs.read_answers(path)
    assert dataclasses.replace(again, seconds=answers.seconds) == answers
    assert again.seconds == pytest.approx(answers.seconds, abs=5e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["answers.csv"]


def test_the_csv_has_a_number_for_the_reader_and_no_truth(answers, study, tmp_path):
    path = tmp_path / "answers.csv"
    rs.write_answers(path, answers)
    head, *rows = path.read_text("utf-8").splitlines()
    assert head == "study,kind,reader,trial,answer,seconds"
    assert rows[0].split(",")[:4] == [study[0].code, study[0].kind, "3", "1"]
    assert len(rows) == len(study[0])
    column = [int(row.split(",")[4]) for row in rows]
    assert column != list(study[1].truth)


def test_a_failed_write_leaves_the_old_file(answers, tmp_path, monkeypatch):
    path = tmp_path / "answers.csv"
    rs.write_answers(path, answers)
    before = path.read_bytes()
    broken = dataclasses.replace(answers)
    object.__setattr__(broken, "seconds", answers.seconds[:-1])
    with pytest.raises(ValueError):
        rs.write_answers(path, broken)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def line(old, new):
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    "spoil, word",
    [
        (lambda text: "", "first line"),
        (line("seconds", "time"), "first line"),
        (lambda text: text.splitlines()[0], "no answers"),
        (line(",1,1,", ",1,x,"), "line 2"),
        (line(",1,1,", ",1,1,9,"), "line 2"),
        (line(",1,2,", ",2,2,"), "one reader"),
        (line(",1,2,", ",1,1,"), "each once and in order"),
        (lambda text: text.replace("rating", "chess"), "chess"),
        (line(",5,", ",6,"), "answer 6 is none"),
        (line(",1.500", ",-1"), "no response time"),
        (line(",1.500", ",nan"), "no response time"),
    ],
)
def test_a_spoilt_csv_says_what_is_wrong(spoil, word, tmp_path):
    path = tmp_path / "answers.csv"
    rs.write_answers(path, rs.Answers("abc", "rating", (3, 5, 1), (1.5, 2.0, 0.7)))
    path.write_text(spoil(path.read_text("utf-8")), "utf-8")
    with pytest.raises(ValueError, match=word) as error:
        rs.read_answers(path)
    assert "answers.csv" in str(error.value)


def test_a_spreadsheets_byte_order_mark_is_no_error(tmp_path):
    path = tmp_path / "answers.csv"
    rs.write_answers(path, rs.Answers("abc", "2afc", (2,), (1.0,)))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert rs.read_answers(path).given == (2,)


def test_answers_and_times_belong_together():
    with pytest.raises(ValueError, match="2 answers and 1 response"):
        rs.Answers("abc", "2afc", (1, 2), (1.0,))


def test_response_times_name_the_slow_trials():
    seconds = [1.0, 1.2, 1.1, 0.9, 1.3, 30.0, 1.0, 1.15]
    times = rs.response_times(seconds)
    assert times.slow == (6,) and times.median == pytest.approx(1.125)
    assert "trials: 6" in str(times)
    assert rs.response_times([1.0] * 5).slow == ()


# --- results


def test_counts_by_hand():
    truth = (1, 1, 1, 1, 2, 2, 2, 2)
    key = rs.AnswerKey("rating", "abc", truth)
    given = (1, 2, 3, 4, 3, 4, 5, 5)  # one false alarm, three hits
    result = rs.score_answers(rs.Answers("abc", "rating", given, (1.0,) * 8), key)
    assert result.right == 6 / 8
    expected = norm.ppf(3.5 / 5) - norm.ppf(1.5 / 5)
    assert result.d.value == pytest.approx(expected)
    # generated 3, 4, 5, 5 win 2.5, 3.5, 4, 4 of four comparisons each
    assert result.area.value == 14 / 16


def test_pairs_by_hand():
    key = rs.AnswerKey("2afc", "abc", (1, 2, 1, 2))
    result = rs.score_answers(rs.Answers("abc", "2afc", (1, 2, 2, 2), (1.0,) * 4), key)
    assert result.right == 3 / 4 and result.left == 1 / 4
    assert result.d.value == pytest.approx(2**0.5 * norm.ppf(3.5 / 5))
    assert result.area is None and "AUC" not in str(result)


def test_answers_to_another_study_or_a_part_of_it_are_refused(study, answers):
    _, key = study
    with pytest.raises(ValueError, match="these answers are to study"):
        rs.score_answers(dataclasses.replace(answers, code="other"), key)
    part = dataclasses.replace(
        answers, given=answers.given[:5], seconds=answers.seconds[:5]
    )
    with pytest.raises(ValueError, match="5 of 20"):
        rs.score_answers(part, key)


@pytest.mark.parametrize("kind", ["rating", "2afc"])
def test_what_is_concluded_follows_the_interval(kind):
    def said(n, d):
        key = rs.AnswerKey(kind, "abc", (1, 2) * (n // 2))
        return rs.score_answers(
            rs.simulate_reader(key, d, seed=1), key, margin=0.5
        ).sentence

    assert "better than by chance" in said(100, 2.0)
    assert "wrong way" in said(100, -2.0)
    assert "no equivalence either" in said(20, 0.0)
    assert "equivalent within +/- 0.5" in said(4000, 0.0)


def test_a_result_shows_itself_as_a_table(study, answers):
    result = rs.score_answers(answers, study[1])
    page = result._repr_html_()
    assert result.sentence in page and page.count("<tr>") == len(result.rows())
    assert str(result.d) in str(result)


# --- readers that are no persons


@pytest.mark.parametrize("kind, n", [("rating", 40), ("rating", 100), ("2afc", 60)])
@pytest.mark.parametrize("d", [0.0, 0.8, 1.8])
def test_readers_of_known_d_prime_are_recovered_in_93_percent_of_studies(kind, n, d):
    key = rs.AnswerKey(kind, "abc", (1, 2) * (n // 2))
    found = [
        rs.score_answers(rs.simulate_reader(key, d, seed=s), key) for s in range(250)
    ]
    assert np.mean([result.d.holds(d) for result in found]) >= 0.93
    assert np.mean([result.d.value for result in found]) == pytest.approx(d, abs=0.12)
    if kind == "rating":
        # the area under the five-point curve of this reader, computed exactly
        borders = np.array([-np.inf, -1.0, -0.3, 0.0, 0.8, np.inf])
        real, fake = (np.diff(norm.cdf(borders - m)) for m in (-d / 2, d / 2))
        area = (fake[:, None] * (np.tri(5, k=-1) + np.eye(5) / 2) * real).sum()
        assert np.mean([result.area.holds(area) for result in found]) >= 0.93


def test_bias_moves_the_criterion_and_not_d_prime():
    key = rs.AnswerKey("rating", "abc", (1, 2) * 1000)
    fair, shy = (
        rs.score_answers(rs.simulate_reader(key, 1.0, bias=b, seed=2), key)
        for b in (0.0, 0.6)
    )
    assert fair.bias.holds(0) and shy.bias.holds(0.6)
    assert shy.d.holds(1.0) and shy.right < fair.right
    key = rs.AnswerKey("2afc", "abc", (1, 2) * 1000)
    lefty = rs.score_answers(rs.simulate_reader(key, 1.0, bias=0.6, seed=2), key)
    assert lefty.left > 0.6


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["rating", "2afc"])
def test_a_machine_reader_sees_the_pixels_and_no_label(kind, channels):
    real, fake = images(20, 0, channels), images(20, 1, channels).clamp(-0.9, 0.9)
    trials, key = rs.make_study(real, fake, 20, kind, seed=3)
    seen = []

    def darkest(x):
        seen.append(x)
        return x.reshape(len(x), -1).min(axis=1)

    assert rs.score_answers(rs.answers_from_scores(trials, darkest), key).right > 0.8
    turned = rs.answers_from_scores(trials, lambda x: -darkest(x))
    assert rs.score_answers(turned, key).right < 0.4
    assert seen[0].dtype == np.float32 and seen[0].shape[1:] == (channels, SIDE, SIDE)
    assert np.array_equal(rs.to_uint8(seen[0]), rs.to_uint8(seen[1]))
    known = {x.tobytes() for x in rs.to_uint8(torch.cat([real, fake]))}
    assert {x.tobytes() for x in rs.to_uint8(seen[0])} <= known


def test_a_scorer_of_the_wrong_shape_is_refused(study):
    with pytest.raises(ValueError, match="one score an image"):
        rs.answers_from_scores(study[0], lambda x: x)
