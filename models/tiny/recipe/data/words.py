"""Names and things that the generators share. Knows no template."""

from __future__ import annotations

NAMES = (
    "Mia Tom Ann Bob Lena Omar Priya Jack Sara Ken Ivy Hugo Nina Paul Rosa Sam Tara Leo Zoe Max "
    "Anna Ben Clara David Emma Felix Grace Henry Iris James Kate Liam Maria Noah Olivia Peter Ruth "
    "Simon Theo Uma Victor Wendy Yara Adam Bella Carlos Diana Erik Fatima George Hana Ivan Julia"
).split()
ITEMS = (
    "apples books coins pens stamps shells cards cookies marbles oranges pencils stickers balls "
    "cups keys plates roses tickets candles eggs flowers lemons peaches photos ribbons stones toys"
).split()
BOXES = "boxes bags baskets shelves packs trays crates drawers jars rows".split()
CITIES = (
    "Oslo Paris Rome Berlin Madrid Lisbon Vienna Prague Athens Dublin London Warsaw Helsinki Cairo "
    "Nairobi Lagos Delhi Mumbai Tokyo Osaka Seoul Beijing Shanghai Sydney Toronto Boston Chicago "
    "Denver Seattle Lima Bogota Santiago Havana Zurich Geneva Munich Hamburg Milan Naples Porto"
).split()
ADJECTIVES = (
    "amber brave calm dark early fair gentle happy icy jolly kind late mild noble old pale quick "
    "red silent tall urban vivid warm young blue bright clear deep dry fast golden green heavy "
    "light long lucky narrow open proud quiet rough sharp short silver slow small smooth soft "
    "steady sweet thin wide wild wise"
).split()
NOUNS = (
    "anchor arrow badge basin beacon bell bird boat bridge cabin canal candle castle cave clock "
    "cloud coast comet crane crown desert door eagle engine falcon farm field fire forest fox "
    "garden gate glass harbor hill horse house island kite lake lamp lantern leaf lion meadow "
    "mirror moon mountain oak ocean orchard owl palace path pine planet pond rabbit rain river road "
    "rock sail school sea shell ship snow spring star stone storm stream summit sun table tiger "
    "tower train tree tunnel valley violin wagon wave whale wheel wind window wolf wood"
).split()
COLORS = "red blue green yellow orange purple black white brown gray pink".split()
FOODS = "pizza pasta soup salad rice bread curry sushi tacos noodles stew pancakes".split()
JOBS = (
    "teacher doctor nurse baker pilot farmer lawyer painter singer writer engineer chef judge "
    "dentist driver plumber gardener librarian"
).split()
ANIMALS = "cat dog horse rabbit parrot turtle goat cow sheep duck hamster pony".split()
FEMALE = frozenset(
    "Mia Ann Lena Priya Sara Ivy Nina Rosa Tara Zoe Anna Clara Emma Grace Iris Kate Maria Olivia "
    "Ruth Uma Wendy Yara Bella Diana Fatima Hana Julia".split()
)


def pronoun(name: str) -> str:
    """`She` or `He`."""
    return "She" if name in FEMALE else "He"
