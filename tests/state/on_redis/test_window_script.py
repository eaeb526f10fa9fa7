"""The window that the server runs, against the one in memory."""

from __future__ import annotations

import json
import textwrap
from importlib.resources import files
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import DAY, GUARD
from insider_otel.state.moments import MomentsInMemory
from insider_otel.state.protocol import (
    MICROSECONDS,
    Correction,
)
from insider_otel.state.window import RollingWindow


class TestTheScriptsWindow:
    """``window.lua`` is ``window.py`` in another language: whatever is done to both, both answer the same."""

    limits = (Limit(3, 0.001), Limit(9, 0.002), Limit(4, 1, calendar=True))
    # All that is done takes less than a tenth of a second: about midnight, and where a day is guarded from it.
    starts = tuple(20_000 * DAY + after for after in (1234567, -3000, -GUARD - 3000, GUARD - 3000))
    # What is done, to which limit, of the slots granted before, how much later, and at what cost.
    steps = st.lists(
        st.tuples(
            st.sampled_from(
                ["reserve", "reserve", "reserve", "give_back", "confirm", "confirm", "correct", "add", "used"]
            ),
            st.integers(0, 30),
            st.sampled_from([0, 1, 100, 400]),
            st.integers(1, 4),
            st.integers(0, 4),
            st.sampled_from([0, 0, 300, 1500]),
            st.sampled_from([0, 500, 10**7, 10**7]),
        ),
        min_size=30,
        max_size=60,
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(limit=st.sampled_from(limits), now=st.sampled_from(starts), steps=steps)
    def test_answers_as_the_one_in_memory(
        self, admin: Any, limit: Limit, now: int, steps: list[tuple[Any, ...]]
    ) -> None:
        moments, free, gone, kept = MomentsInMemory(), list[int](), list[int](), list[int]()
        window = RollingWindow(moments, free, gone, kept)
        slots = [(now - 2000, 1)]
        # Before midnight, where a limit of calendar days begins with what is guarded after it.
        before = now - 3 * GUARD // 2
        window.add((before, 1))
        calls: list[tuple[Any, ...]] = [("add", [[before, 1]])]
        answers: list[Any] = [None]
        for what, which, later, cost, actual, closed, longest in steps:
            now += later
            slot, held = slots[-1 - which % len(slots)]
            match what:
                case "reserve":
                    answer: Any = window.reserve(limit, now, cost=cost, not_before=now + closed, longest_wait=longest)
                    calls.append((what, now, cost, now + closed, longest))
                    slots += [(answer[0], cost)] * answer[1]
                case "confirm":
                    answer = window.confirm(limit, slot, now, cost=held, not_before=now + closed, longest_wait=longest)
                    calls.append((what, slot, now, held, now + closed, longest))
                    slots += [(answer[0], held)] * answer[1]
                case "give_back":
                    answer = None
                    window.give_back(slot, cost)
                    calls.append((what, slot, cost))
                case "correct":
                    answer = None
                    window.correct(Correction(slot, held, actual, later), now, limit)
                    calls.append((what, slot, held, actual, later, now))
                case "add":
                    answer = None
                    window.add((now - later, cost), (now - later // 2, actual))
                    calls.append((what, [[now - later, cost], [now - later // 2, actual]]))
                case _:
                    answer = window.used(limit, now)
                    calls.append((what, now))
            answers.append(answer)
        reply = json.loads(admin.eval(self.script(), 1, "uses", json.dumps([self.as_lua(limit), calls])))
        assert [self.as_python(answer) for answer in reply["answers"]] == answers
        assert list(map(int, reply["uses"])) == [moments[index] for index in range(len(moments))]
        assert [list(map(int, reply[name])) for name in ("free", "gone", "kept")] == [free, gone, kept]

    @staticmethod
    def script() -> str:
        window = files("insider_otel.state").joinpath("window.lua").read_text()
        whole, small = "local BLOCK = 64", "local BLOCK = 2"
        assert whole in window
        # The few moments of a test fill several blocks, so that one is seen that should have been read anew.
        return window.replace(whole, small) + textwrap.dedent("""
            redis.call("DEL", KEYS[1])
            uses.key = KEYS[1]
            local limit, calls = unpack(cjson.decode(ARGV[1]))
            local steps = {
              reserve = function(...) return reserve(limit, ...) end,
              confirm = function(...) return confirm(limit, ...) end,
              used = function(...) return used(limit, ...) end,
              correct = function(...) return correct(limit, ...) end,
              give_back = give_back, add = add,
            }
            local function all(list)
              local members = {}
              for index = list.first, list.stop - 1 do table.insert(members, digits(list.at(index))) end
              return members
            end
            local answers = {}
            for _, call in ipairs(calls) do
              local answer, taken = steps[call[1]](unpack(call, 2))
              table.insert(answers, {answer and digits(answer) or "none", taken == nil and "none" or taken})
            end
            return cjson.encode({
              answers = answers, uses = all(uses), free = all(free), gone = all(gone), kept = all(kept),
            })
        """)

    @staticmethod
    def as_lua(limit: Limit) -> dict[str, object]:
        return {"count": limit.count, "window": round(limit.window * MICROSECONDS), "calendar": limit.calendar}

    @staticmethod
    def as_python(answer: list[Any]) -> Any:
        moment, taken = answer
        if moment == "none":
            return None
        return int(moment) if taken == "none" else (int(moment), taken)
