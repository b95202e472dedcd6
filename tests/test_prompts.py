from collections import Counter

import pytest

from gdacli.errors import GdaError
from gdacli.prompts import make_prompts, readable

CLASSES = ("n02123394", "great_white_shark")


def test_templates_hold_the_class_in_words_and_classes_may_have_their_own():
    prompts = make_prompts(CLASSES, ["a photo of {class_name}"], {"n02123394": ["{class_name}, a cat", "{a cat}"]})
    assert prompts.choices == (("Persian cat, a cat", "{a cat}"), ("a photo of great white shark",))


def test_a_list_is_drawn_from_by_the_seed_alone_and_evenly():
    prompts = make_prompts(CLASSES, ["a {class_name}", "one {class_name}", "the {class_name}"], {})
    drawn = Counter(prompts(1, seed) for seed in range(900))
    assert set(drawn) == set(prompts.choices[1])
    assert all(250 < count < 350 for count in drawn.values())
    assert prompts(0, 5).split()[0] == prompts(1, 5).split()[0]


def test_a_prompt_of_no_class_is_refused():
    with pytest.raises(GdaError, match="class_prompts: found 'shark'; allowed: .*n02123394, great_white_shark$"):
        make_prompts(CLASSES, ["{class_name}"], {"shark": ["a shark"]})


def test_every_wordnet_id_of_imagenet_is_in_words():
    """Its synsets are those of timm's own list, another file than the one that `readable` reads."""
    from timm.data import ImageNetInfo

    synsets = ImageNetInfo("imagenet-1k").label_names()
    words = [readable(synset) for synset in synsets]
    assert words[:2] == ["tench", "goldfish"]
    assert not any(word in synsets for word in words)
