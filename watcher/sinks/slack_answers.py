"""What Slack's error words mean for a delivery.

The words are those of chat.postMessage, chat.update (https://docs.slack.dev/reference/methods) and
of incoming webhooks, classed as in delivery reference §1.4.
"""

import re
from typing import Final

from watcher.errors import Outcome, SinkError

_BY_OUTCOME: Final = {
    Outcome.RETRY: (
        "internal_error fatal_error service_unavailable request_timeout update_failed"
        " external_channel_migrating rollup_error duplicate_message_not_found"
        " duplicate_channel_not_found"
    ),
    Outcome.THROTTLED: "ratelimited rate_limited",
    Outcome.RETRY_SLOWLY: "team_added_to_org org_login_required message_limit_exceeded accesslimited",
    Outcome.PARK: (
        "invalid_auth not_authed account_inactive token_revoked token_expired missing_scope"
        " no_permission not_allowed_token_type ekm_access_denied two_factor_setup_required"
        " app_access_restricted channel_not_found not_in_channel is_archived messages_tab_disabled"
        " invalid_token action_prohibited no_service no_active_hooks no_team channel_is_archived"
        " posting_to_general_channel_denied team_disabled access_denied"
    ),
    Outcome.BAD_PAYLOAD: (
        "invalid_blocks invalid_blocks_format msg_blocks_too_long msg_too_long too_many_attachments"
        " attachment_payload_limit_exceeded no_text metadata_too_large invalid_json invalid_payload"
    ),
    Outcome.REPOST: (
        "message_not_found cant_update_message edit_window_closed is_inactive block_mismatch"
        " streaming_state_conflict cannot_reply_to_message thread_not_found"
        " restricted_action_thread_locked"
    ),
}
_WORDS: Final = {word: outcome for outcome, words in _BY_OUTCOME.items() for word in words.split()}
_PREFIXES: Final = {
    "restricted_action": Outcome.PARK,
    "invalid_arg": Outcome.BAD_PAYLOAD,
    "invalid_metadata_": Outcome.BAD_PAYLOAD,
}
_AMBIGUOUS: Final = frozenset(
    {"internal_error", "fatal_error", "request_timeout", "duplicate_message_not_found"}
)
"""Some of the operation may have succeeded."""
_WORD: Final = re.compile("[a-z_]{1,64}")
"""Whatever else stands there may hold anything."""


def refused(word: str, detail: str = "") -> SinkError:
    """The error for Slack's `word`; one that is not known is tried again until it is too old."""
    outcome = meaning(word)
    if outcome is None:  # the word goes into the detail only: it labels a metric otherwise
        said = word if _WORD.fullmatch(word) else "an answer that is no word of Slack's"
        return SinkError("unknown_error", Outcome.RETRY, detail=detail or said)
    return SinkError(word, outcome, detail=detail, ambiguous=word in _AMBIGUOUS)


def meaning(word: str) -> Outcome | None:
    """What this one of Slack's error words means; None if it is none that is known."""
    begun = (outcome for prefix, outcome in _PREFIXES.items() if word.startswith(prefix))
    return _WORDS.get(word) or next(begun, None)
