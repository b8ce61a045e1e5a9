import math

import pytest

from raylib.annotation.label_probs import TokenChoice, label_probs

CLASSES = ("Exact", "Exact Match", "Brand Mismatch", "Accessory")


def token(text, *others):
    """A token that got what the others left."""
    rest = 1.0 - sum(probability for _, probability in others)
    return TokenChoice(text, [(text, math.log(rest)), *((other, math.log(p)) for other, p in others)])


def test_probability_goes_to_the_classes_that_the_alternatives_begin():
    tokens = [
        token("same"),
        token("\n"),
        token("Label"),
        token(":"),
        token(" Brand", (" Accessory", 0.1), (" Ex", 0.2)),
    ]
    probs = label_probs([*tokens, token(" Mismatch"), token("<|im_end|>")], CLASSES)
    assert probs == pytest.approx([0.1, 0.1, 0.7, 0.1])  # " Ex" may become either of two


def test_a_class_that_begins_another_ends_with_its_line():
    tokens = [token("Label:"), token(" Exact", (" Brand", 0.5)), token("<|im_end|>", (" Match", 0.4))]
    assert label_probs(tokens, CLASSES) == pytest.approx([0.3, 0.2, 0.5, 0.0])
    tokens[2] = token(" Match", ("\n", 0.25))
    assert label_probs(tokens, CLASSES) == pytest.approx([0.125, 0.375, 0.5, 0.0])


def test_what_begins_no_class_is_left_out():
    tokens = [token("Label:"), token(" Accessory", (" Banana", 0.5), (" Brand", 0.25))]
    assert label_probs(tokens, CLASSES) == pytest.approx([0.0, 0.0, 0.5, 0.5])


def test_case_and_spaces_of_a_label_do_not_matter():
    tokens = [token("LABEL:"), token(" "), token("acc", ("br", 0.5)), token("essory")]
    assert label_probs(tokens, CLASSES) == pytest.approx([0.0, 0.0, 0.5, 0.5])


def test_only_the_last_label_line_counts():
    quoted = [token("Label:"), token(" Exact"), token(" is what the title says"), token("\n")]
    tokens = [*quoted, token("Label:"), token(" Accessory", (" Brand", 0.5))]
    assert label_probs(tokens, CLASSES) == pytest.approx([0.0, 0.0, 0.5, 0.5])


@pytest.mark.parametrize(
    "tokens",
    [
        [token("no label here")],
        [token("Label:"), token(" Something"), token(" else")],
        [token("Label: Ex"), token("act")],  # the label begins inside a token
        [],
    ],
)
def test_an_answer_that_does_not_tell_has_none(tokens):
    assert label_probs(tokens, CLASSES) is None
