"""What the specifications ask of a server, and the tests that hold it to them.

25 is revision 2025-11-25, 26 is 2026-07-28. S is sampling, T tools, M multi round-trip requests,
P progress, N cancellation, E elicitation, H transports and messages. What clients owe (S12, S13,
S16, S17, M9) is here as what the server makes of it, or as what the mock client does.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Requirement:
    """One of them: what is asked, and the tests that fail where it is not held."""

    asks: str
    tests: tuple[str, ...]
    """Each as ``file::test``, from the folder of all tests."""


def _(asks: str, *tests: str) -> Requirement:
    return Requirement(asks, tests)


REQUIREMENTS: dict[str, Requirement] = {
    # --- sampling ------------------------------------------------------------------------------
    "S1": _(
        "no tools to a client without sampling.tools",
        "faults/test_clients.py::test_a_capability_that_is_missing",
        "test_hosts.py::test_missing_capability",
    ),
    "S2": _(
        "sampling must be declared; in 26 the answer is -32021, over HTTP with 400",
        "faults/test_clients.py::test_a_capability_that_is_missing",
        "faults/test_protocol.py::test_S2_H4_errors_over_http",
    ),
    "S3": _(
        "a tool use is followed at once by its results",
        "test_machine_properties.py::test_the_history_is_balanced_and_writable_at_every_ask_and_at_the_end",
        "faults/test_replies.py::test_two_uses_of_one_id",
    ),
    "S4": _(
        "a message with results holds nothing else",
        "test_machine_properties.py::test_the_history_is_balanced_and_writable_at_every_ask_and_at_the_end",
        "test_limits.py::test_a_notice_stands_inside_the_last_result_after_what_the_tool_gave",
    ),
    "S5": _(
        "every tool use is answered by its id",
        "faults/test_replies.py::test_an_unknown_tool_beside_a_good_one",
        "faults/test_replies.py::test_ten_thousand_calls_of_one_id_in_one_reply",
        "faults/test_tools.py::test_a_cancelled_run_goes_to_the_next_model",
    ),
    "S6": _(
        "the steps of a loop are limited",
        "faults/test_replies.py::test_tool_calls_for_ever_with_a_limit",
        "faults/test_replies.py::test_tool_calls_for_ever_without_a_limit",
    ),
    "S7": _(
        "content is validated",
        "faults/test_replies.py::test_arguments_of_the_wrong_kind_are_asked_for_once_more",
        "faults/test_replies.py::test_a_reply_in_the_users_name",
        "faults/test_replies.py::test_an_unknown_block_of_a_client",
    ),
    "S8": _(
        "sensitive data is handled with care",
        "faults/test_secrets.py::test_what_is_in_exceptions_stays_there",
        "faults/test_secrets.py::test_a_registered_secret",
    ),
    "S9": _(
        "includeContext is not used",
        "faults/test_protocol.py::test_S9_includeContext_is_never_on_the_wire",
    ),
    "S10": _(
        "26: a provider does what sampling does",
        "test_carriers.py::test_same_everywhere",
    ),
    "S11": _(
        "26: no message list is kept between requests",
        "faults/test_state.py::test_rounds_on_two_replicas",
        "test_hosts.py::test_low_level_servers_may_share_a_key",
    ),
    "S12": _(
        "a client keeps to maxTokens, so replies are cut",
        "faults/test_replies.py::test_a_reply_that_was_cut",
    ),
    "S13": _(
        "a client may drop the system prompt, so no rule lives there alone",
        "faults/test_protocol.py::test_S13_no_rule_is_in_the_system_prompt_alone",
    ),
    "S14": _(
        "any stop reason may come",
        "faults/test_replies.py::test_content_decides_and_not_the_stop_reason",
    ),
    "S15": _(
        "content is one block or a list",
        "faults/test_protocol.py::test_S15_one_block_and_a_list_of_one",
    ),
    "S16": _(
        "a model may break toolChoice: what it must not call is not run",
        "faults/test_replies.py::test_a_call_although_none_is_allowed",
    ),
    "S17": _(
        "25: -1 is a rejection, -32602 a wrong history",
        "faults/test_protocol.py::test_S17_errors_of_a_client_have_their_kinds",
    ),
    "S18": _(
        "26: a client that declines may stay away",
        "faults/test_models.py::test_a_client_that_never_comes_back",
        "faults/test_clients.py::test_the_user_rejects_the_second_round",
    ),
    "S19": _(
        "25: asks only within a request of the client's (SEP-2260)",
        "faults/test_protocol.py::test_S19_asks_arrive_on_the_stream_of_their_call",
        "test_hosts.py::test_what_cannot_be_served_is_said_at_once",
    ),
    "S20": _(
        "26: no requests to the client",
        "faults/test_protocol.py::test_S20_N3_H7_M11_E8_what_a_server_writes",
    ),
    "S21": _(
        "a person can deny asks and calls",
        "faults/test_clients.py::test_the_user_rejects_the_second_ask",
        "faults/test_tools.py::test_an_approval_that_is_denied",
    ),
    "S22": _(
        "_meta of uses and results is kept",
        "faults/test_replies.py::test_an_id_of_an_earlier_turn_and_opaque_fields",
    ),
    # --- tools ---------------------------------------------------------------------------------
    "T1": _(
        "an input schema is of an object, and valid",
        "faults/test_tools.py::test_names_and_schemas_that_cannot_be",
        "test_tools.py::test_a_schema_is_of_an_object",
    ),
    "T2": _(
        "2020-12 is supported, an unknown dialect is a clear error",
        "faults/test_protocol.py::test_T2_dialects_of_schemas",
    ),
    "T3": _(
        "26: a $ref to the network is not fetched",
        "faults/test_tools.py::test_references_to_the_network_are_not_followed",
    ),
    "T4": _(
        "26: schemas are bounded",
        "faults/test_replies.py::test_arguments_made_for_patterns_that_backtrack",
        "faults/test_protocol.py::test_T4_a_listed_schema_that_nests_too_deeply",
    ),
    "T5": _(
        "all inputs of tools are validated",
        "faults/test_replies.py::test_arguments_that_do_not_fit",
    ),
    "T6": _(
        "wrong input is an error of the tool, with the same text on each wire (SEP-1303)",
        "faults/test_replies.py::test_arguments_that_do_not_fit",
        "faults/test_protocol.py::test_T6_wrong_input_of_a_mounted_agent",
    ),
    "T7": _(
        "an unknown tool is -32602 for a client, and an error result in a loop",
        "faults/test_protocol.py::test_T7_an_unknown_tool_is_invalid_params",
        "faults/test_replies.py::test_an_unknown_tool_beside_a_good_one",
    ),
    "T8": _(
        "structured content conforms to the output schema, and is there as text too",
        "test_hosts.py::test_schema_and_content_follow_the_output_type",
        "faults/test_protocol.py::test_T8_a_result_that_violates_its_schema",
    ),
    "T9": _(
        "tools run with the rights of the caller, and what they give is bounded and clean",
        "faults/test_clients.py::test_a_forged_call_of_a_tool_that_the_caller_may_not_use",
        "faults/test_tools.py::test_output_that_is_too_much",
    ),
    "T10": _(
        "26: tools are listed in a fixed order, the same for everybody",
        "faults/test_protocol.py::test_T10_listed_the_same_every_time",
        "test_tools.py::test_tools_are_offered_in_the_same_order_every_time",
    ),
    "T11": _(
        "annotations of another server are not trusted",
        "faults/test_protocol.py::test_T11_annotations_of_another_server_change_nothing",
    ),
    "T12": _(
        "names are 1 to 128 plain characters, and unique",
        "test_tools.py::test_names_that_the_protocol_does_not_allow",
        "test_tools.py::test_two_tools_of_one_name_and_the_reserved_name_are_refused",
    ),
    "T13": _(
        "tools of several servers are told apart by a prefix",
        "test_remote_tools.py::test_two_servers_need_prefixes",
        "faults/test_tools.py::test_dotted_names_come_back_as_they_went",
    ),
    "T14": _(
        "26: x-mcp-header stands on reachable plain parameters",
        "faults/test_protocol.py::test_T14_a_header_of_a_parameter_inside_another",
    ),
    # --- rounds --------------------------------------------------------------------------------
    "M1": _(
        "26: rounds only for the methods that have them",
        "faults/test_protocol.py::test_M1_no_rounds_for_another_method",
    ),
    "M2": _(
        "26: keys are unique, and each stands for one of three kinds of request",
        "faults/test_protocol.py::test_M2_keys_and_kinds_of_what_is_asked",
        "test_rounds.py::test_all_asks_of_a_round_leave_together",
    ),
    "M3": _(
        "26: only what was declared on this request is asked",
        "faults/test_clients.py::test_a_capability_that_is_withdrawn_between_rounds",
        "faults/test_users.py::test_only_modes_that_were_declared_are_used",
    ),
    "M4": _(
        "26: requestState is protected, and what fails is rejected",
        "faults/test_state.py::test_R01_R02_tampered",
        "faults/test_state.py::test_without_a_boundary_no_round_begins",
    ),
    "M5": _(
        "26: it is bound to principal, expiry and request",
        "faults/test_state.py::test_R17_R18_R19_another_principal",
        "faults/test_state.py::test_R05_a_state_of_other_arguments",
        "faults/test_state.py::test_R23_an_expired_state",
    ),
    "M6": _(
        "26: single use is enforced by the server where it matters",
        "faults/test_state.py::test_R08_the_same_round_three_times",
        "faults/test_state.py::test_R09_five_copies_at_once",
        "faults/test_state.py::test_R10_an_old_state_thirty_times",
    ),
    "M7": _(
        "26: nobody relies on the client's coming back",
        "faults/test_state.py::test_abandoned_at_every_round",
    ),
    "M8": _(
        "26: answers are validated, unknown ones ignored, missing ones asked for again",
        "faults/test_state.py::test_R06_R07_missing_and_unknown_answers",
        "faults/test_state.py::test_R13_nine_answers_of_the_wrong_kind",
    ),
    "M9": _(
        "26: a client's retry has a new id and the state as it was",
        "faults/test_protocol.py::test_M9_the_mock_client_echoes_the_state_under_a_new_id",
    ),
    "M10": _(
        "26: nothing of earlier requests of the connection is relied on",
        "faults/test_state.py::test_rounds_on_two_replicas",
        "faults/test_clients.py::test_a_capability_that_is_withdrawn_between_rounds",
    ),
    "M11": _(
        "26: every result has a resultType",
        "faults/test_protocol.py::test_S20_N3_H7_M11_E8_what_a_server_writes",
    ),
    # --- progress and cancellation -------------------------------------------------------------
    "P1": _(
        "progress rises, has the request's token, and ends with it",
        "faults/test_clients.py::test_progress_of_a_thousand_calls",
        "test_progress.py::test_none_after_the_end",
    ),
    "P2": _("progress is limited in its rate", "test_progress.py::test_a_burst_is_bounded"),
    "N1": _(
        "cancelled: stop, free, do not answer",
        "faults/test_tools.py::test_cancelled_while_three_tools_run",
        "faults/test_protocol.py::test_N1_N3_nothing_comes_for_a_cancelled_request",
    ),
    "N2": _(
        "25: a disconnect cancels nothing; 26: closing the response cancels",
        "faults/test_clients.py::test_a_dropped_stream_of_2025_stops_nothing",
        "faults/test_clients.py::test_a_response_that_is_closed_stops_the_tool",
    ),
    "N3": _(
        "26: no notifications/cancelled, and nothing more for a cancelled request",
        "faults/test_protocol.py::test_N1_N3_nothing_comes_for_a_cancelled_request",
        "faults/test_protocol.py::test_S20_N3_H7_M11_E8_what_a_server_writes",
    ),
    "N4": _(
        "every request that is sent has a timeout, and is then cancelled",
        "faults/test_models.py::test_a_client_that_never_answers",
    ),
    "N5": _(
        "26: after a broken stream the same call may come anew",
        "faults/test_state.py::test_a_client_that_never_got_the_first_round_calls_anew",
    ),
    # --- elicitation ---------------------------------------------------------------------------
    "E1": _(
        "no elicitation mode that was not declared",
        "faults/test_users.py::test_only_modes_that_were_declared_are_used",
    ),
    "E2": _(
        "no secrets by form",
        "faults/test_users.py::test_a_form_for_secrets_is_the_authors_mistake",
    ),
    "E3": _(
        "forms are flat and of plain fields",
        "test_user.py::test_a_form_that_the_protocol_forbids_is_refused",
    ),
    "E4": _(
        "URLs are valid, https, and carry no credentials",
        "test_user.py::test_a_url_that_the_protocol_forbids_is_refused",
    ),
    "E5": _(
        "decline, cancel and failure are handled; accepting a URL is consent",
        "faults/test_users.py::test_declining_and_cancelling_are_results",
        "faults/test_users.py::test_a_client_that_refuses_to_ask_ends_nothing_over_push",
    ),
    "E6": _(
        "bound to client and user, not to a session",
        "faults/test_state.py::test_R17_R18_R19_another_principal",
        "faults/test_state.py::test_R17_another_principal_over_http",
    ),
    "E7": _(
        "what is given on a page never reaches client or model",
        "faults/test_secrets.py::test_what_a_person_says_is_for_the_tool_alone",
    ),
    "E8": _(
        "25: a URL has an elicitationId; 26: no -32042 and no -32002",
        "faults/test_protocol.py::test_S20_N3_H7_M11_E8_what_a_server_writes",
        "faults/test_protocol.py::test_E8_only_2025_has_ids_for_urls",
    ),
    # --- transports and messages ---------------------------------------------------------------
    "H1": _(
        "25: a stream that broke is taken up again",
        "faults/test_protocol.py::test_H1_H2_a_stream_that_broke_is_taken_up_again",
    ),
    "H2": _(
        "25: only the messages of that stream are sent again",
        "faults/test_protocol.py::test_H1_H2_a_stream_that_broke_is_taken_up_again",
    ),
    "H3": _(
        "the origin of a request is checked",
        "faults/test_protocol.py::test_H3_a_request_of_another_origin",
    ),
    "H4": _(
        "26: header and body agree, or -32020; missing _meta is -32602 and 400",
        "faults/test_protocol.py::test_S2_H4_errors_over_http",
    ),
    "H5": _(
        "26: no error codes of our own in the ranges of the protocol",
        "faults/test_protocol.py::test_H5_no_error_code_is_invented",
    ),
    "H6": _(
        "nothing but MCP on stdout",
        "faults/test_clients.py::test_noise_on_standard_output",
    ),
    "H7": _(
        "26: no log messages that were not asked for",
        "faults/test_protocol.py::test_S20_N3_H7_M11_E8_what_a_server_writes",
    ),
    "H8": _(
        "messages are UTF-8",
        "faults/test_tools.py::test_text_that_no_wire_takes",
        "faults/test_clients.py::test_noise_on_standard_output",
    ),
    "H9": _(
        "26: state across requests is named by what the client brings",
        "faults/test_protocol.py::test_H9_two_calls_side_by_side_keep_apart",
    ),
}
