//! Pages of lists. A token is opaque to callers: it holds where the last page ended, bound to the list and its filters by a digest, so
//! that a token of another list, of other filters, or of nobody is refused. It needs no secret: it opens nothing.

use memharvest_services::rpc_error::invalid_field;
use sha2::{Digest, Sha256};
use tonic::Status;

/// Page size where none is asked for.
const USUAL: u32 = 100;

/// Largest page; a larger one that is asked for is cut to it.
const LARGEST: u32 = 1000;

/// Bytes of the digest in a token.
const DIGEST: usize = 8;

/// A page that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Records wanted.
    pub(crate) size: u32,
    /// Where the last page ended; `None`: from the start.
    pub(crate) cursor: Option<String>,
    list: String,
}

impl Page {
    /// Reads a request. `list` names the list and all its filters.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a negative size or a foreign token.
    pub(crate) fn of(list: String, page_size: i32, page_token: &str) -> Result<Self, Status> {
        let size = match u32::try_from(page_size) {
            Ok(0) => USUAL,
            Ok(size) => size.min(LARGEST),
            Err(_) => return Err(invalid_field("page_size", "must be from 0 to 1000; 0 means 100")),
        };
        let cursor = match page_token {
            "" => None,
            token => Some(open(&list, token).ok_or_else(|| {
                invalid_field(
                    "page_token",
                    "is not a token of this list with these filters; start without one",
                )
            })?),
        };
        Ok(Self { size, cursor, list })
    }

    /// The cursor in its parsed form.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where it cannot be parsed.
    pub(crate) fn cursor_as<T: std::str::FromStr>(&self) -> Result<Option<T>, Status> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        cursor.parse().map(Some).map_err(|_| invalid_field("page_token", "is damaged; start without one"))
    }

    /// One more record than the page holds: its presence tells that another page follows.
    pub(crate) fn limit(&self) -> u32 {
        self.size + 1
    }

    /// Cuts what [`Page::limit`] fetched to the page and gives the token of the next one, empty after the last.
    pub(crate) fn cut<T>(&self, records: &mut Vec<T>, cursor: impl Fn(&T) -> String) -> String {
        let size = self.size as usize;
        if records.len() <= size {
            return String::new();
        }
        records.truncate(size);
        records.last().map_or_else(String::new, |last| seal(&self.list, &cursor(last)))
    }
}

fn digest(list: &str, cursor: &[u8]) -> [u8; DIGEST] {
    let mut hash = Sha256::new();
    hash.update((list.len() as u64).to_be_bytes());
    hash.update(list);
    hash.update(cursor);
    let full = hash.finalize();
    let mut short = [0; DIGEST];
    short.copy_from_slice(&full[..DIGEST]);
    short
}

fn seal(list: &str, cursor: &str) -> String {
    let mut token = String::with_capacity(2 * (DIGEST + cursor.len()));
    for byte in digest(list, cursor.as_bytes()).iter().chain(cursor.as_bytes()) {
        token.extend([byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
    }
    token
}

fn open(list: &str, token: &str) -> Option<String> {
    if !token.is_ascii() || !token.len().is_multiple_of(2) || token.len() < 2 * DIGEST {
        return None;
    }
    let bytes: Vec<u8> = (0..token.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&token[at..at + 2], 16).ok())
        .collect::<Option<_>>()?;
    let (found, cursor) = bytes.split_at(DIGEST);
    if found != digest(list, cursor) {
        return None;
    }
    String::from_utf8(cursor.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_token_opens_its_own_list_only(list in ".{0,20}", other in ".{0,20}", cursor in ".{0,40}") {
            let token = seal(&list, &cursor);
            prop_assert_eq!(open(&list, &token), Some(cursor));
            if list != other {
                prop_assert_eq!(open(&other, &token), None);
            }
        }

        #[test]
        fn no_text_makes_it_panic(token in ".{0,80}") {
            prop_assert_eq!(open("agents", &token), None);
        }
    }

    #[test]
    fn sizes_follow_the_contract() {
        let size = |size| {
            Page::of("agents".to_owned(), size, "").map(|page| page.size).map_err(|status| status.code())
        };
        assert_eq!(size(0), Ok(100));
        assert_eq!(size(7), Ok(7));
        assert_eq!(size(5000), Ok(1000));
        assert_eq!(size(-1), Err(tonic::Code::InvalidArgument));
    }

    #[test]
    fn a_page_is_cut_and_the_next_one_follows_it() {
        let page = Page::of("agents".to_owned(), 2, "").unwrap();
        let mut records = vec!["a", "b", "c"];
        let token = page.cut(&mut records, ToString::to_string);
        assert_eq!(records, ["a", "b"]);
        let next = Page::of("agents".to_owned(), 2, &token).unwrap();
        assert_eq!(next.cursor.as_deref(), Some("b"));
        assert_eq!(next.cut(&mut vec!["c"], ToString::to_string), "");
    }
}
