"""Sentences that the built-in model's words make: call-centre talk in English and Korean, from templates with slots.

One sentence in ten, by its hash, was kept out of the model's training: `is_held_out`.
"""

from __future__ import annotations

import hashlib
from random import Random

WORDS = {
    "en": {
        "name": "anna|david|maria|peter|sarah|kevin|linda|robert|emma|oscar",
        "day": "monday|tuesday|wednesday|thursday|friday|saturday|sunday",
        "part": "morning|afternoon|evening",
        "item": "order|ticket|invoice|package|refund|payment|delivery|account|contract|booking|complaint|request",
        "device": "phone|laptop|printer|router|screen|camera|battery|charger|keyboard|server|tablet|speaker",
        "color": "red|blue|green|black|white|yellow",
        "city": "london|seoul|paris|berlin|tokyo|boston|madrid|dublin",
        "dept": "billing|sales|support|shipping|security|service",
        "status": "ready|late|missing|broken|open|closed|approved|rejected|cancelled|confirmed|delayed|complete",
        "verb": "check|cancel|change|confirm|close|update|send|track",
    },
    "ko": {
        "name": "김민수|이지은|박서준|최유리|정하늘|한지민|강태호|윤소라",
        "day": "월요일|화요일|수요일|목요일|금요일|토요일|일요일",
        "part": "오전|오후|저녁|아침",
        "item": "주문|티켓|환불|배송|결제|계정|예약|계약|송장|소포|요청|영수증",
        "device": "전화기|노트북|프린터|공유기|화면|카메라|배터리|충전기|키보드|서버",
        "color": "빨간|파란|하얀|검은|노란",
        "city": "서울|부산|대구|인천|광주|대전|제주|수원",
        "dept": "배송팀|결제팀|상담팀|기술팀|보안팀|영업팀",
        "hour": "한|두|세|네|다섯|여섯|일곱|여덟|아홉|열",
        "act": "확인|취소|변경|처리|접수|완료",
    },
}

_ENGLISH = """
hello this is {name} from {dept}|hi my name is {name}|good {part} thank you for calling {dept}|how can i help you {when}
thank you {name}|thank you very much for your help|goodbye and have a nice day|yes that is correct
no that is not correct|yes please|no thank you
please hold the line|just a moment please|sorry i did not understand|could you repeat the number please
please call me back {when}|please call back at {time}|i will call you back {when}|my {item} number is {digits}
the {item} number is {digits}|your {item} number is {digits}
is the {item} number {digits}|my phone number is {digits}|please {verb} {item} number {digits}|can you {verb} my {item}
i want to {verb} my {item}|please {verb} the {item} {when}|we will {verb} your {item} {when}
did you {verb} the {item} {when}|the {item} is {status}|your {item} is {status}
my {item} is still {status}|the {item} was {status} {when}|is my {item} {status}|the {color} {device} is {status}
my {device} is not working|the {device} stopped working {when}|i bought a {color} {device} {when}|i need a new {device}
the {device} in {city} is {status}|we sent the {device} to {city}|the package will arrive in {city} {when}
the price is {num} dollars|you paid {num} dollars {when}|we will refund {num} dollars|there are {num} open tickets
there are {num} orders from {city}|the {dept} team has {num} requests
the {dept} team will call you {when}|i am waiting for the {dept} team|{name} from {city} called {when}
please speak to {name} in {dept}|where is my {item}|when will my {device} arrive|the meeting is at {time}
the server is down again|the alarm in room {digits} is {status}
{name} needs the {color} {device}|i live in {city}|the address is {num} station road
turn off the {device} and wait {num} minutes|restart the {device} please|i have a problem with my {device}
is there a problem with the {item}|you are number {num} in the line
the code is {digits}|room {num} is {status}|{digits}|{num}
"""
_KOREAN = """
안녕하세요 {dept} {name}입니다|안녕하세요 저는 {name}입니다|무엇을 도와드릴까요|감사합니다|도와주셔서 감사합니다|네 맞습니다
아니요 틀립니다|네 그렇게 해 주세요|아니요 괜찮습니다|잠시만 기다려 주세요|죄송합니다 다시 말씀해 주세요
번호를 다시 말씀해 주세요|{when} 다시 전화해 주세요|{time}에 전화해 주세요|{when} 전화드리겠습니다
{item} 번호는 {digits}입니다|제 {item} 번호는 {digits}입니다|고객님 {item} 번호는 {digits}입니다
제 전화번호는 {digits}입니다|{item} 번호 {digits} {act}해 주세요|{item:을} {act}하고 싶습니다|{item:을} {act}해 주세요
{when} {item:을} {act}해 주세요|{when} {item:을} {act}하겠습니다|{item:이} {act}되었습니다|{when} {item:이} {act}되었습니다
{item:이} 아직 {act}되지 않았습니다|{item:이} {act}되었나요
{color} {device:이} 고장났습니다|제 {device:이} 작동하지 않습니다|{when} {device:이} 멈췄습니다|{when} {color} {device:을} 샀습니다
새 {device:이} 필요합니다|{city}에 있는 {device:이} 고장났습니다|{device:을} {city}로 보냈습니다
소포는 {when} {city}에 도착합니다|가격은 {num} 원입니다|{num} 원을 환불하겠습니다
{num} 원을 결제했습니다|요청이 {num} 건 있습니다|{city}에서 주문이 {num} 건 들어왔습니다|{dept}에서 {when} 연락드리겠습니다
{dept:을} 기다리고 있습니다|{city}에서 {name} 고객님이 전화했습니다|{dept} {name}에게 연락해 주세요
제 {item:은} 어디에 있나요|{device:은} 언제 도착하나요|회의는 {time}에 시작합니다
서버가 다시 멈췄습니다|저는 {city}에 살고 있습니다|{device:을} 끄고 {num} 분 기다려 주세요|{device:을} 다시 켜 주세요
{device}에 문제가 있습니다|{item}에 문제가 있습니다|좋은 하루 되세요|비밀번호는 {digits}입니다|대기 번호는 {num} 번입니다
{digits} 번|{num} 번
"""
TEMPLATES = {
    language: [template for line in text.strip().splitlines() for template in line.split("|")]
    for language, text in (("en", _ENGLISH), ("ko", _KOREAN))
}
DIGITS = {
    "en": "zero one two three four five six seven eight nine".split(),
    "ko": "공 일 이 삼 사 오 육 칠 팔 구".split(),
}
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_MINIMUM_WORDS = {"en": 4, "ko": 3}


def sentence(random: Random, language: str) -> str:
    """One template with its slots filled."""
    text = random.choice(TEMPLATES[language])
    while "{" in text:
        start, end = text.index("{"), text.index("}")
        text = text[:start] + _slot(random, language, text[start + 1 : end]) + text[end + 1 :]
    return " ".join(text.split())


def is_held_out(text: str, language: str) -> bool:
    """Whether the model was never trained on this sentence; those without slots it always was."""
    if text in TEMPLATES[language] or len(text.split()) < _MINIMUM_WORDS[language]:
        return False
    return int(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(), 16) % 10 == 0


def _slot(random: Random, language: str, slot: str) -> str:
    words = WORDS[language]
    if slot == "digits":
        return " ".join(random.choice(DIGITS[language]) for _ in range(random.randint(3, 5)))
    if slot == "num":
        return _english_number(random) if language == "en" else _korean_number(random)
    if slot == "time":
        return _english_time(random) if language == "en" else _korean_time(random)
    if slot == "when":
        forms = (
            "today|tomorrow|yesterday|on D|on D P|this P|tomorrow P|next week|last week|next D"
            if language == "en"
            else "오늘|내일|어제|D에|D P에|오늘 P에|내일 P에|다음 주에|지난주에|다음 주 D에"
        )
        form = _pick(random, forms)
        return form.replace("D", _pick(random, words["day"])).replace("P", _pick(random, words["part"]))
    if ":" in slot:
        slot, particle = slot.split(":")
        return _with_particle(_pick(random, words[slot]), particle)
    return _pick(random, words[slot])


def _pick(random: Random, choices: str) -> str:
    return random.choice(choices.split("|"))


def _with_particle(word: str, particle: str) -> str:
    """Korean particles come in two forms: after a vowel, and after a final consonant."""
    ends_in_consonant = (ord(word[-1]) - 0xAC00) % 28 != 0
    return word + {"을": "를을", "이": "가이", "은": "는은"}[particle][ends_in_consonant]


def _english_number(random: Random) -> str:
    kind = random.random()
    digits = DIGITS["en"][1:]
    if kind < 0.25:
        return random.choice(digits)
    if kind < 0.4:
        return random.choice(_TEENS)
    tens = random.choice(_TENS) + (" " + random.choice(digits) if random.random() < 0.7 else "")
    if kind < 0.75:
        return tens
    return random.choice(digits) + _pick(random, " hundred| thousand") + (" " + tens if random.random() < 0.6 else "")


def _english_time(random: Random) -> str:
    hour = random.choice(DIGITS["en"][1:] + _TEENS[:3])
    return hour + _pick(random, "| thirty| fifteen") + _pick(random, "| in the morning| in the evening")


def _korean_number(random: Random) -> str:
    kind, digits, leading = random.random(), DIGITS["ko"][1:], "|이|삼|사|오|육|칠|팔|구"
    tens = _pick(random, leading) + "십" + (" " + random.choice(digits) if random.random() < 0.6 else "")
    if kind < 0.2:
        return random.choice(digits)
    if kind < 0.6:
        return tens
    return _pick(random, leading) + _pick(random, "백|천|만") + (" " + tens if random.random() < 0.6 else "")


def _korean_time(random: Random) -> str:
    words = WORDS["ko"]
    return f"{_pick(random, words['part'])} {_pick(random, words['hour'])} {_pick(random, '시|시 반')}"
