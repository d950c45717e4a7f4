//! Pages of what is in memory: a page's token is the identity of its last item, so that a page never shifts.

use std::fmt::Write;

use super::problem::FieldError;
use super::query::Page;

/// The items after the page's token that fit, and the token of the next page.
pub(crate) fn slice_after<'a, T>(
    ordered: &'a [T],
    id: impl Fn(&T) -> &String,
    fits: impl Fn(&T) -> bool,
    page: &Page,
) -> Result<(Vec<&'a T>, String), FieldError> {
    let start = match page.token.as_str() {
        "" => 0,
        token => {
            let last = unhex(token).ok_or_else(|| FieldError {
                field: "page_token".into(),
                message: "is not a token of this list; start without one".into(),
            })?;
            ordered.partition_point(|item| *id(item) <= last)
        }
    };
    let mut fitting = ordered[start..].iter().filter(|item| fits(item));
    let items: Vec<&T> = fitting.by_ref().take(page.size).collect();
    let more = fitting.next().is_some();
    let next = items.last().filter(|_| more).map(|last| hex(id(last))).unwrap_or_default();
    Ok((items, next))
}

fn hex(id: &str) -> String {
    id.bytes().fold(String::with_capacity(2 * id.len()), |mut token, byte| {
        // Writing to a string cannot fail.
        let _ = write!(token, "{byte:02x}");
        token
    })
}

fn unhex(token: &str) -> Option<String> {
    if !token.bytes().all(|digit| digit.is_ascii_hexdigit()) || !token.len().is_multiple_of(2) {
        return None;
    }
    let byte = |at| u8::from_str_radix(token.get(at..at + 2)?, 16).ok();
    String::from_utf8((0..token.len()).step_by(2).map(byte).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(ids: &[String], size: usize, fits: impl Fn(&String) -> bool + Copy) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut page = Page { size, token: String::new() };
        loop {
            let (items, next) = slice_after(ids, |id| id, fits, &page).unwrap();
            pages.push(items.into_iter().cloned().collect());
            if next.is_empty() {
                return pages;
            }
            page.token = next;
        }
    }

    #[test]
    fn pages_cover_everything_once() {
        let ids: Vec<String> = (0..7).map(|id| format!("vm-{id}")).collect();
        assert_eq!(walk(&ids, 3, |_| true).iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
        assert_eq!(walk(&ids, 7, |_| true).len(), 1);
        assert_eq!(walk(&ids, 2, |id| id > &"vm-4".to_owned()), [["vm-5", "vm-6"]]);
        assert_eq!(walk(&[], 2, |_| true), [Vec::<String>::new()]);
    }

    #[test]
    fn an_item_that_is_gone_leaves_its_place() {
        let ids = ["a".to_owned(), "c".to_owned()];
        let page = Page { size: 10, token: hex("b") };
        assert_eq!(slice_after(&ids, |id| id, |_| true, &page).unwrap().0, ["c"]);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for token in ["b", "zz", "ff", "é"] {
            let page = Page { size: 10, token: token.into() };
            assert_eq!(slice_after(&[], |id: &String| id, |_| true, &page).unwrap_err().field, "page_token");
        }
    }
}
