"""Hostile chat templates by name, and the process that tries them all under limits.

Each of them would take ages or gigabytes in Jinja's own sandbox, or would get at what isn't its
business. ``python -m tests.text.hostile_templates`` prints what becomes of them as JSON.
"""

import contextlib
import faulthandler
import json
import sys
import time

from edgeqwen.errors import TemplateError
from edgeqwen.text import chat_template

MEMORY = 1 << 30
SECONDS = 60
# A tenth of the real budget: what matters is that it is kept.
STEPS = chat_template.BASE_STEPS // 10

_MANY = "{% for i in range(100000) %}"
_TWICE = _MANY * 2
_END = "{% endfor %}"
_NS = "{% set ns = namespace(x='aaaaaaaa', y=[1], z=[1], n=3) %}"
_BIG = "{% set s = 'a' * 100000 %}"
# Two lists that hold each other twice over, a hundred levels deep.
_DEEP = (
    _NS + "{% for i in range(100) %}{% set ns.y = [ns.y, ns.y] %}{% set ns.z = [ns.z, ns.z] %}"
    "{% endfor %}"
)
_TUPLES = (
    "{% set ns = namespace(y=(1,)) %}{% for i in range(100) %}{% set ns.y = (ns.y, ns.y) %}" + _END
)
_SEARCHED = "{% set s = 'a' * 1000000 %}{% set t = 'b' + 'a' * 500000 %}"


def _repeat(statement: str) -> str:
    return _NS + _MANY + statement + _END


LOOPS = {
    "nested": _MANY * 3 + _END * 3,
    "nested with nothing to do": _MANY * 3 + "{% if false %}{% endif %}" + _END * 3,
    "filtered": _MANY + "{% for j in range(100000) if false %}{% endfor %}" + _END,
    "filtered by a filter": _MANY
    + "{% for j in range(100000)|select('equalto', -1) %}{% endfor %}"
    + _END,
    "large range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "large body": _TWICE + "{% if a %}{% endif %}" * 2000 + _END * 2,
    "large text": _TWICE + "x" * 10000 + _END * 2,
    "filter block": _MANY + "{% filter upper %}" + "x" * 1000 + "{% endfilter %}" + _END,
    "over a generator": "{% for x in range(100000)|map('string')|map('string') %}"
    "{% for y in range(100000) %}{% endfor %}{% endfor %}",
    "length of a generator": "{% for i in range(100000)|map('string') %}{{ loop.length }}"
    + _MANY
    + _END * 2,
    "refund": "{{ [-100000000]|map(' tick')|list }}" + _TWICE + _END * 2,
    "recursive": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "recursive and wide": "{% for x in range(1000) recursive %}{{ loop(range(1000)) }}{% endfor %}",
    "recursive and filtered": "{% for x in range(1000) if x >= 0 recursive %}"
    "{% if loop.depth < 90 %}{{ loop(range(100000)) }}{% endif %}{% endfor %}",
    "macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro that calls twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(90) }}",
    "macro with text": "{% macro f() %}"
    + "x" * 50000
    + "{% endmacro %}"
    + _repeat("{% set q = f() %}"),
    "macro through callers": "{% macro f() %}{% call f() %}{% endcall %}{{ caller() }}"
    "{% endmacro %}{{ f() }}",
    "nested callers": "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}"
    + "{% call m() %}" * 15
    + "x" * 1000
    + "{% endcall %}" * 15,
    "many arguments": "{% macro f() %}{% endmacro %}" + _repeat("{{ f(*range(100000)) }}"),
    "dates": _repeat("{% set q = strftime_now('%c' * 90) %}"),
}
GROWTH = {
    "times": "{{ 'a' * 10 ** 9 }}",
    "times, the other way": "{{ 10 ** 9 * 'a' }}",
    "times, unused": "{% set x = 'a' * 10 ** 9 %}",
    "list times": "{{ [1] * 10 ** 9 }}",
    "tuple times": "{{ (1,) * 10 ** 9 }}",
    "doubled by ~": _repeat("{% set ns.x = ns.x ~ ns.x %}"),
    "doubled by +": _repeat("{% set ns.x = ns.x + ns.x %}"),
    "list doubled": _repeat("{% set ns.y = ns.y + ns.y %}"),
    "doubled by join": _repeat("{% set ns.x = [ns.x, ns.x]|join %}"),
    "doubled by .join": _repeat("{% set ns.x = ''.join([ns.x, ns.x]) %}"),
    "doubled by a block": _repeat("{% set t %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = t %}"),
    "doubled by replace": _repeat("{% set ns.x = ns.x|replace('a', 'aa') %}"),
    "doubled by .replace": _repeat("{% set ns.x = ns.x.replace('a', 'aa') %}"),
    "doubled by escape": _repeat("{% set ns.x = (ns.x ~ '<')|string|e|string %}"),
    "doubled by string": _NS
    + "{% set ns.x = '\\\\' %}"
    + _MANY
    + "{% set ns.x = [ns.x]|string %}"
    + _END,
    "doubled by tojson": _NS
    + "{% set ns.x = '\"' %}"
    + _MANY
    + "{% set ns.x = ns.x|tojson %}"
    + _END,
    "replace": _BIG + "{{ s|replace('a', s) }}",
    ".replace": _BIG + "{{ s.replace('a', s) }}",
    ".replace of nothing": _BIG + "{{ s.replace('', s) }}",
    "join": _BIG + "{{ s|join(s) }}",
    "join of a generator": _BIG + "{{ range(100000)|map('string')|join(s) }}",
    ".join": _BIG + "{{ s.join(range(100000)|map('string')) }}",
    ".join of characters": _BIG + "{{ s.join(s) }}",
    "indent": "{{ 'a\nb'|indent(10 ** 9) }}",
    "indent the first line": "{{ 'a'|indent(10 ** 9, true) }}",
    "indent many lines": "{{ ('\n' * 100000)|indent(100000, true, true) }}",
    "power": "{{ 2 ** 4000 ** 4000 }}",
    "power, chained": "{{ 10 ** (10 ** 10) }}",
    "squares": _repeat("{% set ns.n = ns.n * ns.n %}"),
    "% of a width": "{{ '%1000000000d' % 1 }}",
    "% through a test": "{{ '%1000000000d' is odd }}{{ '%1000000000d' is divisibleby 3 }}",
    "% through select": "{{ ['%1000000000d']|select('even')|list }}",
    "format": "{{ '%1000000000d'|format(1) }}",
    ".format": "{{ '{:1000000000}'.format(1) }}",
    ".format_map": "{{ '{x:1000000000}'.format_map({'x': 1}) }}",
    "center": "{{ 'a'|center(10 ** 9) }}",
    ".center": "{{ 'a'.center(10 ** 9) }}",
    ".ljust": "{{ 'a'.ljust(10 ** 9) }}",
    ".zfill": "{{ 'a'.zfill(10 ** 9) }}",
    ".expandtabs": "{{ '\t'.expandtabs(10 ** 9) }}",
    "batch": "{{ [1]|batch(10 ** 9, 1)|list }}",
    "slice": "{{ [1]|slice(10 ** 9)|list }}",
    "lipsum": "{{ lipsum(10 ** 8) }}",
    "round": "{{ 1.5|round(10 ** 9, 'ceil') }}",
    "tojson, indented": "{{ [1]|tojson(indent=10 ** 9) }}",
    "tojson, indented by text": "{{ [[1]]|tojson(indent='a' * 100000) }}",
    "tojson, separated": _BIG + "{{ range(100000)|list|tojson(separators=(s, s)) }}",
    "tojson, deep": _NS
    + "{% for i in range(900) %}{% set ns.y = [ns.y] %}{% endfor %}"
    + _MANY
    + "{% set q = ns.y|tojson(indent=16) %}"
    + _END,
    "lists of characters": _BIG + _repeat("{% set ns.y = [ns.y, s|list] %}"),
    "lists of words": "{% set s = 'a ' * 50000 %}" + _repeat("{% set ns.y = [ns.y, s.split()] %}"),
    "slices": _BIG + _repeat("{% set ns.y = [ns.y, s[1:]] %}"),
    "map": _BIG + "{{ range(100000)|map('default', s, true)|map('upper')|list|length }}",
    "date": "{{ strftime_now('%c' * 100000) }}",
}
DEPTH = {
    "print": _DEEP + "{{ ns.y }}",
    "string": _DEEP + "{{ ns.y|string|length }}",
    "~": _DEEP + "{% set q = ns.y ~ '' %}",
    "join": _DEEP + "{% set q = [ns.y]|join %}",
    "tojson": _DEEP + "{{ ns.y|tojson }}",
    "print mappings": _NS
    + "{% for i in range(100) %}{% set ns.y = {'a': ns.y, 'b': ns.y} %}{% endfor %}{{ ns.y }}",
    "print namespaces": _NS
    + "{% for i in range(100) %}{% set ns.y = namespace(a=ns.y, b=ns.y) %}{% endfor %}{{ ns.y }}",
    "print a circle": _NS + "{% set ns.y = ns %}{{ ns }}",
    "print arguments": "{% macro f(n) %}{% if n > 60 %}{{ varargs }}{% else %}"
    "{{ f(n + 1, varargs, varargs) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "print keywords": "{% macro f(n) %}{% if n > 60 %}{{ kwargs }}{% else %}"
    "{{ f(n + 1, a=kwargs, b=kwargs) }}{% endif %}{% endmacro %}{{ f(0) }}",
    "==": _DEEP + "{{ ns.y == ns.z }}",
    "<": _DEEP + "{{ ns.y < ns.z }}",
    "chained": _DEEP + "{{ 1 == 1 == (ns.y == ns.z) }}",
    "is eq": _DEEP + "{{ ns.y is eq ns.z }}",
    "in": _DEEP + "{{ ns.y in [ns.z] }}",
    "is in": _DEEP + "{{ ns.y is in [ns.z] }}",
    "in values": _DEEP + "{{ ns.y in {'a': ns.z}.values() }}",
    "in a generator": _DEEP + "{{ ns.y in ([ns.z]|map('list')) }}",
    "items": _DEEP + "{{ {'a': ns.y}.items() == {'a': ns.z}.items() }}",
    "index": _DEEP + "{{ [ns.y].index(ns.z) }}",
    "count": _DEEP + "{{ [ns.y].count(ns.z) }}",
    "changed": _DEEP + "{% for q in [ns.y, ns.z] %}{{ loop.changed(q) }}{% endfor %}",
    "sort": _DEEP + "{{ [ns.y, ns.z]|sort|length }}",
    "max": _DEEP + "{% set q = [ns.y, ns.z]|max %}",
    "dictsort": _DEEP + "{{ {'a': ns.y, 'b': ns.z}|dictsort(by='value') }}",
    "select": _DEEP + "{% set q = [ns.y]|select('equalto', ns.z)|list %}",
    "key": _TUPLES + "{% set q = {ns.y: 1} %}",
    "get": _TUPLES + "{% set q = {}.get(ns.y) %}",
    "in a mapping": _TUPLES + "{% set q = ns.y in {'a': 1} %}",
    "unique": _TUPLES + "{% set q = [ns.y]|unique|list %}",
    "item": _TUPLES + "{{ {'a': 1}[ns.y].x }}",
    "item of nothing": _TUPLES + "{{ x[ns.y] }}",
    "item of a namespace": _TUPLES + "{{ ns[ns.y].x }}",
    "dict": _TUPLES + "{% set q = dict([(ns.y, 1)]) %}",
    "namespace": _TUPLES + "{% set q = namespace([(ns.y, 1)]) %}",
    "views subtracted": _TUPLES + "{% set q = {'a': ns.y}.items() - {}.items() %}",
    "views and a list subtracted": _TUPLES + "{% set q = {}.keys() - [ns.y] %}",
    "in items": _TUPLES + "{% set q = (ns.y, 1) in {'a': 1}.items() %}",
    "in keys": _TUPLES + "{% set q = ns.y in {'a': 1}.keys() %}",
    "raised": _DEEP + "{{ raise_exception(ns.y) }}",
    "date": _DEEP + "{{ strftime_now(ns.y) }}",
    "range": _DEEP + "{{ range(ns.y) }}",
    "is filter": _TUPLES + "{{ ns.y is filter }}",
    "is test": _TUPLES + "{{ ns.y is test }}",
    "name for map": _TUPLES + "{{ [1]|map(ns.y)|list }}",
    "name for select": _TUPLES + "{{ [1]|select(ns.y)|list }}",
    "guard through map": _TUPLES + "{{ [1]|map(' compare', ns.y, 1)|list }}",
    "thousands of levels": _NS
    + "{% for i in range(20000) %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.y }}",
    "two of thousands of levels": _NS
    + "{% for i in range(9000) %}{% set ns.y = [ns.y] %}{% set ns.z = [ns.z] %}{% endfor %}"
    "{{ ns.y == ns.z }}",
}
SEARCHES = {
    **{
        name: _SEARCHED + "{{ s." + name + "(t) }}"
        for name in ("rfind", "rindex", "rpartition", "rsplit")
    },
    "rsplit by keyword": _SEARCHED + "{{ s.rsplit(maxsplit=3, sep=t) }}",
    "strip": _SEARCHED + "{{ s.strip('b' * 500000 + 'a') }}",
    "trim": _SEARCHED + "{{ s|trim('b' * 500000 + 'a') }}",
    "find": "{% set s = 'a' * 2499 %}{% set t = 'b' + 'a' * 1249 %}"
    + _TWICE
    + "{% set q = s.find(t) %}"
    + _END * 2,
    "in": "{% set s = 'a' * 29000 %}{% set t = 'a' * 49 + 'b' + 'a' * 49 %}"
    + _TWICE
    + "{% set q = t in s %}"
    + _END * 2,
    "in a range": _MANY + "{% set q = 'a' in range(100000) %}" + _END,
    "equal to the last character": "{% set s = 'a' * 1000000 %}{% set t = 'a' * 999999 + 'b' %}"
    + _MANY
    + "{% set q = s == t %}"
    + _END,
    "many prefixes": "{% set s = 'a' * 100000 %}{% set t = ('a' * 50000 + 'b',) * 1000 %}"
    + _MANY
    + "{% set q = s.startswith(t) %}"
    + _END,
    "upper": _BIG + _MANY + "{% set q = s|upper %}" + _END,
    ".upper": _BIG + _MANY + "{% set q = s.upper() %}" + _END,
    "largest character": "{% set s = 'a' * 1000000 %}" + _MANY + "{% set q = s|max %}" + _END,
    "attributes": "{{ range(100000)|map(attribute='a.' * 100000)|list }}",
    "attributes to sort by": "{{ range(100000)|sort(attribute='a.' * 100000) }}",
    "digits": "{{ ('9' * 100000)|int }}",
}
ESCAPES = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class as an item": "{{ ''['__class__']['__mro__'].x }}",
    "class by a filter": "{{ ''|attr('__class__') }}",
    "class by map": "{{ (['']|map(attribute='__class__')|list|first).x }}",
    "class by .format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "globals of a function": "{{ raise_exception.__globals__.x }}",
    "globals of a class": "{{ range.__init__.__globals__.x }}",
    "itself": "{{ self.__init__.__globals__.x }}",
    "its context": "{{ self._TemplateReference__context.environment.x }}",
    "function of a macro": "{% macro f() %}{% endmacro %}{{ f._func.__globals__.x }}",
    "environment of a macro": "{% macro f() %}{% endmacro %}{{ f._environment.x }}",
    "inside of a loop": "{% for i in [1] %}{{ loop._iterator.x }}{% endfor %}",
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'a': 1}) }}",
    "pop": "{{ messages.pop() }}",
    "include": "{% include 'x' %}",
    "import": "{% import 'x' as x %}",
    "from import": "{% from 'x' import y %}",
    "extends": "{% extends 'x' %}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "debug": "{% debug %}",
    "call a text": "{{ 'a'() }}",
    "call a list": "{{ messages() }}",
    "cycler": "{{ cycler('a').next() }}",
}
SOURCES = {
    "parentheses": "{{ " + "(" * 60000 + " }}",
    "pairs of parentheses": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "lists": "{{ " + "[" * 30000 + "]" * 30000 + " }}",
    "plus": "{{ " + "+".join(["1"] * 30000) + " }}",
    "tilde": "{{ " + "~".join(["a"] * 15000) + " }}{{ 1 / 0 }}",
    "filters": "{{ a" + "|e" * 30000 + " }}",
    "not": "{{ " + "not " * 15000 + "a }}",
    "minus": "{{ " + "-" * 60000 + "1 }}",
    "dots": "{{ messages" + ".a" * 30000 + " }}",
    "calls": "{{ messages" + "()" * 30000 + " }}",
    "ifs": "{% if a %}" * 3000 + "{% endif %}" * 3000,
    "fors": "{% for i in [1] %}" * 1500 + "{% endfor %}" * 1500,
    "elifs": "{% if a %}" + "{% elif a %}" * 5000 + "{% endif %}{{ 1 / 0 }}",
    "sets": "{% set a = 1 %}" * 4000 + "{{ 1 / 0 }}",
    "outputs": "{{ a }}" * 8000 + "{{ 1 / 0 }}",
    "never closed": "{{ " * 20000,
    "block never closed": "{% " * 20000,
    "comment never closed": "{#" * 30000,
    "raw never closed": "{% raw %}" * 7000,
    "spaces": " " * 60000 + "{{ x.y }}",
    "spaces in a block": "{%" + " " * 60000 + "x %}",
    "lines": "\n" * 60000 + "{{ x.y }}",
    "text never closed": "{{ '" + "\\" * 60000 + " }}",
    "digits": "{{ " + "9" * 60000 + " }}",
    "digits and lines": "{{ " + "9_" * 30000 + "x }}",
    "too long": "a" * 200_000,
}
HOSTILE = {
    f"{kind}: {name}": source
    for kind, sources in {
        "loops": LOOPS,
        "growth": GROWTH,
        "depth": DEPTH,
        "searches": SEARCHES,
        "escapes": ESCAPES,
        "sources": SOURCES,
    }.items()
    for name, source in sources.items()
}


def main() -> None:
    """Prints {name: [seconds, error or null]}, or dies of memory or time."""
    with contextlib.suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chat_template.BASE_STEPS = STEPS
    outcomes: dict[str, tuple[float, str | None]] = {}
    for name, source in HOSTILE.items():
        print(name, file=sys.stderr)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        began, outcome = time.perf_counter(), None
        try:
            chat_template.ChatTemplate(source).render([{"role": "user", "content": "x"}])
        except TemplateError as error:
            outcome = str(error)
        outcomes[name] = (time.perf_counter() - began, outcome)
    json.dump(outcomes, sys.stdout)


if __name__ == "__main__":
    main()
