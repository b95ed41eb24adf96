"""Chat templates that would take a server's time, memory or secrets, by kind."""

from __future__ import annotations

_DOUBLE = "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}"
KINDS: dict[str, tuple[str, ...]] = {
    "loops without end": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{% for i in range(9) %}{{ f() }}{% endfor %}{% endmacro %}{{ f() }}",
        "{% for i in range(99999) recursive %}{% if loop.depth < 9 %}{{ loop(range(99999)) }}"
        "{% endif %}{% endfor %}",
    ),
    "long ranges": (
        "{% for i in range(10**9) %}x{% endfor %}",
        "{{ range(10**12)|list|length }}",
        "{{ range(0, 10**9, 2)|join }}",
    ),
    "attribute walks": (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ (raise_exception.__globals__)['os'].system('true') }}",
        "{{ ''|attr('__class__')|attr('__mro__') ~ (1).__class__.x }}",
        "{{ self.__init__.__globals__.__builtins__.open('/etc/passwd').read() }}",
    ),
    "formats that walk": (
        "{{ '{0.__class__.__mro__}'.format(1) }}",
        "{{ '{0.__init__.__globals__}'.format(raise_exception) }}",
        "{{ '{a.__class__.__mro__}'.format(a=messages) }}",
    ),
    "texts by multiplication": (
        "{{ 'x' * 10**10 }}",
        "{{ ('x' * 10**5) * 10**5 }}",
        _DOUBLE + "{% endfor %}{{ n.x }}",
        "{{ [0] * 10**10 }}",
    ),
    "wide formats": (
        "{{ '%10000000000d'|format(1) }}",
        "{{ '{:>10000000000}'.format(1) }}",
        "{{ 'x'.ljust(10**11) }}",
        "{{ 'x'|center(10**11) }}",
    ),
    "deep recursion": (
        "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% macro f() %}{{ g() }}{% endmacro %}{% macro g() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    ),
    "deep nesting": (
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
        "{{ " + "[" * 20000 + "]" * 20000 + " }}",
        "{{ " + "-" * 20000 + "1 }}",
    ),
    "long output": (
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% for i in range(9999) %}{{ messages|tojson * 1000 }}{% endfor %}",
        "{{ 'x' * 9000000 }}",
    ),
    "files": (
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
        "{% extends '/etc/passwd' %}",
        "{% from '/etc/passwd' import x %}",
    ),
    "slow filters": (
        "{{ lipsum(n=10**7) }}",
        "{{ ((range(99999)|list * 300)|sort(reverse=true))|sort|length }}",
        "{{ (([0] * 10**6)|tojson * 40)|wordcount ~ (('a ' * 10**8)|wordcount) }}",
    ),
    "changes of what it is given": (
        "{{ messages.append(1) }}",
        "{{ messages.clear() }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{% do messages.pop() %}",
    ),
    "large numbers": (
        "{{ 10**(10**9) }}",
        "{{ 9**(9**(9**9)) }}",
        "{{ (10**7)**(10**7) }}",
    ),
}
