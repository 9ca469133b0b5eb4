"""OpenAI's API says `english` where Whisper's token says `en`."""

from __future__ import annotations

from stt_engine.languages import LANGUAGES

_NAMES = dict(
    zip(
        LANGUAGES,
        """
        english chinese german spanish russian korean french japanese portuguese turkish polish catalan dutch arabic
        swedish italian indonesian hindi finnish vietnamese hebrew ukrainian greek malay czech romanian danish
        hungarian tamil norwegian thai urdu croatian bulgarian lithuanian latin maori malayalam welsh slovak telugu
        persian latvian bengali serbian azerbaijani slovenian kannada estonian macedonian breton basque icelandic
        armenian nepali mongolian bosnian kazakh albanian swahili galician marathi punjabi sinhala khmer shona yoruba
        somali afrikaans occitan georgian belarusian tajik sindhi gujarati amharic yiddish lao uzbek faroese
        haitian_creole pashto turkmen nynorsk maltese sanskrit luxembourgish myanmar tibetan tagalog malagasy assamese
        tatar hawaiian lingala hausa bashkir javanese sundanese cantonese
        """.split(),
        strict=True,
    )
)


def english_name(code: str | None) -> str:
    """`unknown` where nothing was heard; the code itself where the language has no name here."""
    return "unknown" if code is None else _NAMES.get(code, code).replace("_", " ")
