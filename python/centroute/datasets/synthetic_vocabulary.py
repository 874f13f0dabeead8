"""Words of the synthetic sample that several kinds of task share, and the types of its phrase tables."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Passage:
    """Several different sentences in drawn order; each one beyond the fewest adds difficulty."""

    sentences: tuple[str, ...]
    fewest: int
    most: int
    per_sentence: float = 0.12
    separator: str = " "
    paragraph: int = 1000
    """A blank line stands after every so many sentences."""


# dict: text → difficulty in logits; tuple and range: no difficulty of their own.
Vocabulary = dict[str, float] | tuple[str, ...] | range | Passage


def words(text: str) -> tuple[str, ...]:
    """Split a table written as one text at its commas; entries may run over line breaks."""
    return tuple(" ".join(word.split()) for word in text.split(","))


def graded(groups: Mapping[float, str]) -> dict[str, float]:
    """Return text → difficulty from difficulty → comma-separated texts."""
    return {word: difficulty for difficulty, text in groups.items() for word in words(text)}


SHARED: dict[str, Vocabulary] = {
    "name": words("""
        Amara, Beatriz, Carlos, Daria, Emeka, Farah, Giulia, Hiroshi, Ines, Jonas, Katya, Leila, Mateo, Nadia,
        Olu, Priya, Quentin, Rosa, Sven, Tariq, Uma, Viktor, Wanda, Xin, Yusuf, Zofia, Bruno, Chidi, Elif,
        Freya, Gustav, Hana, Ivo, Jun, Kofi, Lucia, Milan, Noor, Otto, Pilar
    """),
    "surname": words("""
        Abara, Bianchi, Castellano, Dvorak, Eriksen, Fontaine, Grabowski, Haddad, Ivanov, Jansen, Kimura,
        Lindqvist, Moreau, Nakamura, Okafor, Petrov, Quispe, Rossi, Santos, Tanaka, Ueda, Varga, Weber,
        Yilmaz, Zhang, Osei
    """),
    "city": words("""
        Lisbon, Nairobi, Kraków, Osaka, Bogotá, Tallinn, Lyon, Hanoi, Porto, Quito, Accra, Bergen, Valencia,
        Izmir, Montréal, Gdańsk, Lima, Busan, Turin, Leipzig, Cork, Dakar, Perth, Ghent, Tbilisi, Rabat, Graz,
        Malmö, Seville, Medellín, Kyoto, Zagreb, Utrecht, Chennai, Auckland, Santiago
    """),
    "company": words("""
        Brightmoor Foods, Callister Freight, Dunmere Optics, Elder & Finch, Fernway Rail, Greyharbour Energy,
        Hollowell Paper, Inkstone Press, Juniper Dental, Kestrel Cycles, Larkfield Homes, Millrace Brewing,
        Northgate Textiles, Ostrava Glass, Pinecrest Health, Quillon Studios, Redfern Motors, Saltbridge
        Seafood, Thistledown Toys, Umber Ceramics, Verity Insurance, Westerly Ferries, Yarrow Biotech, Zephyr
        Sails
    """),
    "product": words("""
        desk lamp, winter jacket, coffee grinder, hiking boot, travel kettle, garden hose, desk chair,
        toaster, bicycle helmet, water bottle, wireless keyboard, yoga mat, camping tent, bread knife, wall
        clock, rucksack, vacuum cleaner, frying pan, picture frame, picnic basket, sleeping bag, power drill,
        headset, rice cooker
    """),
    "animal": words("""
        sea turtle, barn owl, grey parrot, red kite, honey bee, king penguin, snow leopard, river otter, newt,
        hedgehog, blue whale, tree frog, peregrine falcon, giant squid, fruit bat, mountain goat, seahorse,
        pangolin, beaver, wombat, cheetah, puffin, chameleon, tardigrade
    """),
    "topic": words("""
        public transport, school lunches, night trains, urban trees, recycling, volunteer fire brigades, tidal
        power, community gardens, remote work, bicycle lanes, public libraries, heat pumps, rainwater
        harvesting, bee keeping, museum funding, flood defences, street markets, tourism taxes, open science,
        noise pollution, housing cooperatives, food waste, adult education, river restoration, coastal
        erosion, parental leave, space debris, digital identity, repair cafés, fish farming
    """),
    "month": words("""
        January, February, March, April, May, June, July, August, September, October, November, December
    """),
    "weekday": words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "colour": words("red, blue, green, yellow, purple, brown, white, black, silver, turquoise"),
    "relation": words("""
        my neighbour, my landlord, a customer, my manager, my sister, the head teacher, our supplier, a
        colleague, my grandmother, the town council, my football team, an old friend, our new intern, my
        students
    """),
    "few": range(3, 10),
    "small": range(2, 13),
    "tens": range(12, 100),
    "hundreds": range(105, 1000),
    "thousands": range(1040, 9990),
    "percent": range(3, 60),
    "cents": range(10, 100),
    "day": range(1, 29),
    "late_day": range(10, 29),
    "hour": range(7, 21),
    "minute": range(10, 60),
    "year": range(1995, 2031),
    "past": range(1702, 1990),
}
