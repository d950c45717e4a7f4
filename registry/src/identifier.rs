//! What ids and labels may look like. One place, so that an id that one RPC takes is taken by all.

/// Longest id, in characters.
pub const MAX_ID: usize = 128;

/// Whether a text can be an agent's or host's id: 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether a text can be a violation's id: an id that may hold colons.
#[must_use]
pub fn is_violation_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
}

/// Whether a text can name a label: 1 to 63 characters of `A-Z a-z 0-9 . _ - /`.
#[must_use]
pub fn is_label_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
}

/// Whether a text can be a label's value: at most 253 bytes without control characters.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    text.len() <= 253 && !text.chars().any(char::is_control)
}
