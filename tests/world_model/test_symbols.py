"""A table of symbols gives every symbol one code, for ever."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from world_model.symbols import UNKNOWN, SymbolTable

A, B, C, D = ([1, 2], [2, 1], [0, 0], [-7, 2**40])


def rows(*symbols: list[int]) -> np.ndarray:
    return np.array(symbols)


def test_codes_are_given_out_in_the_order_in_which_symbols_are_first_seen():
    table = SymbolTable(8, 2)
    assert table.lookup(rows(B, A, B, C)).tolist() == [1, 2, 1, 3]
    assert table.lookup(rows(D, C, A)).tolist() == [4, 3, 2]


def test_symbols_come_back_from_their_codes_and_unknown_is_all_zeros():
    table = SymbolTable(8, 2)
    codes = table.lookup(rows(D, A, B))
    assert table.symbols(codes).tolist() == [D, A, B]
    assert table.symbols(np.array([UNKNOWN])).tolist() == [[0, 0]]


def test_any_shape_goes_in_and_codes_of_that_shape_come_out():
    table = SymbolTable(8, 2)
    symbols = np.array([[A, B, A], [C, C, B]])
    assert table.lookup(symbols).tolist() == [[1, 2, 1], [3, 3, 2]]
    assert table.symbols(table.lookup(symbols)).tolist() == symbols.tolist()
    assert table.lookup(symbols.astype(np.uint8)).tolist() == [[1, 2, 1], [3, 3, 2]], "whatever the type of integer"


def test_what_was_never_seen_is_unknown_unless_the_table_may_grow():
    table = SymbolTable(8, 2)
    assert table.lookup(rows(A, B), grow=False).tolist() == [UNKNOWN, UNKNOWN]
    table.lookup(rows(A))
    assert table.lookup(rows(A, B), grow=False).tolist() == [1, UNKNOWN]
    assert int(table.count) == 2, "looking did not add it"
    assert table.lookup(rows(B)).tolist() == [2]


def test_a_full_table_calls_the_rest_unknown_and_keeps_what_it_has():
    table = SymbolTable(3, 2)  # unknown and two more
    assert table.lookup(rows(A, B, C, D, A)).tolist() == [1, 2, UNKNOWN, UNKNOWN, 1]
    assert table.lookup(rows(D, B, A)).tolist() == [UNKNOWN, 2, 1]
    assert int(table.count) == 3


def test_a_symbol_of_zeros_is_a_symbol_and_not_unknown():
    table = SymbolTable(8, 2)
    assert table.lookup(rows(C)).tolist() == [1] and table.lookup(rows(C), grow=False).tolist() == [1]


def test_codes_keep_their_meaning_in_a_table_that_was_loaded():
    table = SymbolTable(8, 2)
    codes = table.lookup(rows(D, B, A))
    loaded = SymbolTable(8, 2)
    loaded.lookup(rows(A, B, C))  # as many, others: what it had must not be remembered
    loaded.load_state_dict(table.state_dict())
    assert loaded.lookup(rows(D, B, A, C), grow=False).tolist() == [*codes.tolist(), UNKNOWN]
    assert loaded.lookup(rows(C)).tolist() == table.lookup(rows(C)).tolist() == [4]


def test_codes_in_use_cover_all_that_were_given_out_and_never_exceed_the_table():
    table = SymbolTable(40, 1)
    seen = []
    for n in range(45):
        codes = table.lookup(np.array([[n]]))
        assert int(codes.max()) < table.in_use <= 40
        seen.append(table.in_use)
    assert seen == sorted(seen) and len(set(seen)) <= 4, "it grows, in few steps: shapes seldom change"


def test_a_thousand_symbols_never_collide():
    table = SymbolTable(1100, 3)
    symbols = np.array([[i, j, k] for i in range(10) for j in range(10) for k in range(10)])
    assert table.lookup(symbols).tolist() == list(range(1, 1001))
    assert np.array_equal(table.symbols(table.lookup(symbols)), symbols)


def test_the_table_takes_no_part_in_training():
    table = SymbolTable(8, 2)
    assert list(table.parameters()) == [] and set(table.state_dict()) == {"values", "count"}
    assert all(not value.is_floating_point() for value in table.state_dict().values())


@pytest.mark.parametrize("seed", range(3))
def test_one_symbol_at_a_time_or_all_at_once_makes_no_difference(seed: int):
    symbols = np.random.default_rng(seed).integers(0, 3, (60, 2))
    at_once, one_by_one = SymbolTable(16, 2), SymbolTable(16, 2)
    codes = at_once.lookup(symbols)
    assert [one_by_one.lookup(symbol[None])[0] for symbol in symbols] == codes.tolist()
    assert torch.equal(at_once.values, one_by_one.values)


def test_a_table_that_is_full_says_so_once_with_the_key_that_makes_it_larger(caplog: pytest.LogCaptureFixture):
    table = SymbolTable(3, 2, "observation `image`", "model.table_size")
    table.lookup(rows(A, B))
    table.lookup(rows(C), grow=False)
    assert caplog.text == "", "not before: what is only looked at may be unknown for other reasons"
    assert table.lookup(rows(A, C, D)).tolist() == [1, UNKNOWN, UNKNOWN]
    table.lookup(rows(C, D))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("observation `image` has more distinct symbols than model.table_size=3 holds")
    assert said.endswith("give a larger model.table_size")
