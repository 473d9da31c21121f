"""Conditions of routes and of hub queries: one grammar, two dialects.

    condition  = operands between operators, from the loosest to the tightest:
                 ??    OR    AND    = != <>    < <= > >=    + - ||    * / %    NOT    -
    operand    = 'text' | "text" | number | 0xhex | true | false | null | undefined | property
               | function(condition, ...) | (condition)
    property   = name | $systemName | $body.path[0].to | {$name}      in routes
               | path.of.names['and more']                            in queries

Sources: IoT Hub developer guide ("message routing query syntax", "query language"); where they are silent, what the
public sources of edgeHub do (Condition.g4, ConditionVisitor).

`ROUTES`, as edgeHub has it: types are checked when the route is set. Application and system properties are text, so
`level > 3` is refused and `as_number(level) > 3` is meant. What `$body` holds is known only when a message comes:
between values of different types `=` is false, `<>` true, and the order is boolean, number, text, null; a path that the
body does not have is null. A `$name` is an application property of that name if there is one, `{$name}` never.

`TWINS`, as IoT Hub has it: values have their JSON types, what is not there is undefined, between different types every
comparison is undefined; `NOT` takes a whole comparison; `IN [..]`; the only function is IS_DEFINED.

Three-valued in both: undefined does not match, negated or not.

>>> condition = parse("as_number(level) > 30 AND NOT ($body.machine.id = 'a')", ROUTES)
>>> condition.matches({"level": "31", "$body.machine.id": "b"}.get)
True
"""

from edgeclave.deployment.conditions.expressions import ROUTES, TWINS, Condition, Dialect, Resolver
from edgeclave.deployment.conditions.parser import parse
from edgeclave.deployment.conditions.values import UNDEFINED

__all__ = ["ROUTES", "TWINS", "UNDEFINED", "Condition", "Dialect", "Resolver", "parse"]
