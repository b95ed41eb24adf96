"""The tools that tool documents offer: schema, how users ask, what comes back, what to answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from recipe.data.words import ADJECTIVES, CITIES, FOODS, ITEMS, NAMES, NOUNS

Value = Callable[[Random], Any]


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter under any of its names. `{key}` in templates is its value."""

    key: str
    names: tuple[str, ...]
    kind: str
    value: Value


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool under any of its names. `does` finishes the sentence "The user wants to …"."""

    names: tuple[str, ...]
    does: str
    params: tuple[Param, ...]
    ask: tuple[str, ...]
    result: dict[str, Value]
    answer: str


def _pick(values: list[str]) -> Value:
    return lambda rng: rng.choice(values)


def _int(low: int, high: int) -> Value:
    return lambda rng: rng.randint(low, high)


def _title(rng: Random) -> str:
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def _day(rng: Random) -> str:
    return f"20{rng.randint(20, 30)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _clock(rng: Random) -> str:
    return f"{rng.randint(0, 23):02}:{5 * rng.randrange(12):02}"


def _code(rng: Random) -> str:
    return f"{rng.choice('ABCDEFGHKLMNPRSTUVW')}{rng.choice('ABCDEFGHKLMNPRSTUVW')}{rng.randint(100, 9999)}"


_CITY = Param("city", ("city", "location", "place", "town"), "string", _pick(CITIES))
_FROM = Param("start", ("from", "origin", "start"), "string", _pick(CITIES))
_TO = Param("end", ("to", "destination", "end"), "string", _pick(CITIES))
_WHO = Param("who", ("recipient", "person", "name", "contact"), "string", _pick(NAMES))
_TEXT = Param("text", ("text", "message", "body", "content"), "string", _title)
_DATE = Param("date", ("date", "day"), "string", _day)
_TIME = Param("time", ("time", "at"), "string", _clock)
_ID = Param("code", ("id", "code", "number", "order_id"), "string", _code)
_ITEM = Param("item", ("item", "product", "article"), "string", _pick(ITEMS))
_FOOD = Param("food", ("dish", "food", "meal"), "string", _pick(FOODS))
_COUNT = Param("n", ("quantity", "count", "amount"), "integer", _int(1, 99))
_MINUTES = Param("n", ("minutes", "duration", "length"), "integer", _int(1, 240))
_MONEY = Param("n", ("amount", "value", "sum"), "number", _int(1, 999))
_CUR1 = Param("a", ("from_currency", "source"), "string", _pick(["USD", "EUR", "GBP"]))
_CUR2 = Param("b", ("to_currency", "target"), "string", _pick(["JPY", "CHF", "INR", "SEK"]))
_FLAG = Param("on", ("on", "enabled", "active"), "boolean", lambda rng: rng.random() < 0.5)
_NUMS = Param("list", ("numbers", "values"), "array",
              lambda rng: [rng.randint(1, 99) for _ in range(rng.randint(2, 4))])  # fmt: skip
_ROOM = Param("room", ("room", "area", "zone"), "string",
              _pick("kitchen bedroom bathroom office garage hall".split()))  # fmt: skip
_LANG = Param("lang", ("language", "lang", "to"), "string",
              _pick("French German Spanish Italian Polish Swedish".split()))  # fmt: skip

TOOLS = (
    Tool(("get_weather", "weather", "weather_lookup"), "know the weather", (_CITY,),
         ("What is the weather in {city}?", "Is it warm in {city}?", "Weather in {city}, please."),
         {"temperature": _int(-9, 38), "sky": _pick("sunny cloudy rainy foggy".split())},
         "It is {temperature} degrees and {sky} in {city}."),
    Tool(("get_forecast", "forecast"), "know the forecast", (_CITY, _DATE),
         ("What will the weather be in {city} on {date}?", "Forecast for {city} on {date}."),
         {"sky": _pick("sunny cloudy rainy snowy".split())}, "It will be {sky} in {city} on {date}."),
    Tool(("get_time", "local_time", "clock"), "know the local time", (_CITY,),
         ("What time is it in {city}?", "Tell me the local time in {city}."),
         {"time": _clock}, "It is {time} in {city}."),
    Tool(("send_email", "send_message", "write_mail"), "send a message", (_WHO, _TEXT),
         ("Send {who} the message {text}.", 'Write "{text}" to {who}.', "Tell {who}: {text}"),
         {"status": _pick(["sent"])}, "The message to {who} was sent."),
    Tool(("search_flights", "find_flight", "flights"), "find a flight", (_FROM, _TO, _DATE),
         ("Find a flight from {start} to {end} on {date}.", "I fly from {start} to {end} on {date}."),
         {"flight": _code, "price": _int(49, 900)}, "Flight {flight} costs {price} dollars."),
    Tool(("find_train", "train_search"), "find a train", (_FROM, _TO),
         ("Which train goes from {start} to {end}?", "I need a train from {start} to {end}."),
         {"train": _code, "departure": _clock}, "Train {train} leaves {start} at {departure}."),
    Tool(("convert_currency", "exchange"), "convert money", (_MONEY, _CUR1, _CUR2),
         ("Convert {n} {a} to {b}.", "How much is {n} {a} in {b}?"),
         {"result": _int(1, 9999)}, "{n} {a} are {result} {b}."),
    Tool(("set_timer", "start_timer", "timer"), "set a timer", (_MINUTES,),
         ("Set a timer for {n} minutes.", "Wake me in {n} minutes."),
         {"status": _pick(["running"])}, "The timer runs for {n} minutes."),
    Tool(("set_alarm", "alarm"), "set an alarm", (_TIME,),
         ("Set an alarm for {time}.", "Wake me at {time}."), {"status": _pick(["set"])},
         "The alarm is set for {time}."),
    Tool(("create_event", "add_event", "calendar_add"), "plan an event", (_TEXT, _DATE, _TIME),
         ("Put {text} into my calendar on {date} at {time}.", "Plan {text} for {date}, {time}."),
         {"status": _pick(["created"])}, "The event {text} is planned for {date} at {time}."),
    Tool(("order_status", "track_order", "get_order"), "know the state of an order", (_ID,),
         ("Where is my order {code}?", "What is the status of order {code}?"),
         {"status": _pick("shipped packed delayed delivered".split())}, "Order {code} is {status}."),
    Tool(("order_food", "food_delivery"), "order food", (_FOOD, _COUNT),
         ("Order {n} times {food}.", "I want {n} portions of {food}."),
         {"minutes": _int(10, 90)}, "Your {food} will come in {minutes} minutes."),
    Tool(("buy_item", "purchase", "add_to_cart"), "buy something", (_ITEM, _COUNT),
         ("Buy {n} {item}.", "Please order {n} {item}."),
         {"total": _int(2, 999)}, "{n} {item} cost {total} dollars."),
    Tool(("check_stock", "stock", "inventory"), "know the stock", (_ITEM,),
         ("How many {item} are in stock?", "Do we have {item} in stock?"),
         {"stock": _int(0, 500)}, "There are {stock} {item} in stock."),
    Tool(("add_numbers", "sum", "sum_list"), "add numbers", (_NUMS,),
         ("Add the numbers {list}.", "What is the sum of {list}?"),
         {"sum": _int(10, 400)}, "The sum is {sum}."),
    Tool(("switch_light", "set_light", "light"), "switch a light", (_ROOM, _FLAG),
         ("Turn the light in the {room} {onoff}.", "Light {onoff} in the {room}, please."),
         {"status": _pick(["done"])}, "The light in the {room} is {onoff}."),
    Tool(("set_temperature", "heating", "thermostat"), "set the heating",
         (_ROOM, Param("n", ("degrees", "temperature"), "integer", _int(12, 28))),
         ("Set the {room} to {n} degrees.", "Heat the {room} to {n} degrees."),
         {"status": _pick(["done"])}, "The {room} is set to {n} degrees."),
    Tool(("translate", "translate_text"), "translate text", (_TEXT, _LANG),
         ('Translate "{text}" into {lang}.', "How do you say {text} in {lang}?"),
         {"translation": _title}, "In {lang} it is: {translation}."),
    Tool(("play_music", "play_song", "music"), "hear music",
         (Param("song", ("song", "title", "track"), "string", _title),),
         ("Play the song {song}.", 'I want to hear "{song}".'),
         {"status": _pick(["playing"])}, "Now playing {song}."),
    Tool(("find_contact", "phone_lookup", "contact"), "find a phone number", (_WHO,),
         ("What is the phone number of {who}?", "How can I call {who}?"),
         {"phone": _int(1000000, 9999999)}, "The number of {who} is {phone}."),
    Tool(("book_table", "reserve_table"), "book a table",
         (_CITY, _TIME, Param("n", ("guests", "people", "seats"), "integer", _int(1, 12))),
         ("Book a table in {city} at {time} for {n} people.", "A table for {n} in {city} at {time}."),
         {"table": _code}, "Table {table} is booked for {n} people at {time}."),
    Tool(("find_hotel", "hotel_search", "hotels"), "find a hotel", (_CITY, _DATE),
         ("Find a hotel in {city} on {date}.", "I need a room in {city} on {date}."),
         {"hotel": _title, "price": _int(39, 400)}, "Hotel {hotel} costs {price} dollars."),
    Tool(("get_stock_price", "stock_price", "quote"), "know a share price",
         (Param("code", ("symbol", "ticker"), "string", _pick("ABC XYZ QRS LMN KLT DEF".split())),),
         ("What does the share {code} cost?", "Price of {code}?"),
         {"price": _int(2, 900)}, "{code} costs {price} dollars."),
    Tool(("make_note", "save_note", "note"), "save a note", (_TEXT,),
         ("Note: {text}.", 'Write down "{text}".'), {"id": _code}, "Saved as note {id}."),
    Tool(("get_distance", "distance"), "know a distance", (_FROM, _TO),
         ("How far is it from {start} to {end}?", "Distance between {start} and {end}?"),
         {"km": _int(20, 9000)}, "It is {km} km from {start} to {end}."),
    Tool(("add_task", "create_task", "todo"), "add a task",
         (_TEXT, Param("level", ("priority", "level"), "string", _pick(["low", "high"]))),
         ("Add the task {text} with {level} priority.", "New {level} priority task: {text}"),
         {"id": _code}, "Task {id} was added."),
)  # fmt: skip
