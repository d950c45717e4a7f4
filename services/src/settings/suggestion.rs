//! "Did you mean": the nearest known name, if one is near enough.

/// Edits (insert, delete, replace) that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right_char) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_char != *right_char);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

/// The known name nearest to `word`, unless even that one is more than a third of it away.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    known
        .into_iter()
        .map(|name| (distance(word, name), name))
        .min()
        .filter(|(edits, _)| *edits <= word.chars().count().div_ceil(3))
        .map(|(_, name)| name.to_owned())
}

/// The end of an error message.
pub(super) fn hint(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("; did you mean `{name}`?"),
        None => "; --help lists what is known".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_slip_of_the_pen_but_no_stranger() {
        let known = ["listen", "admin_listen", "log_format"];
        assert_eq!(nearest("lisen", known).as_deref(), Some("listen"));
        assert_eq!(nearest("log-format", known).as_deref(), Some("log_format"));
        assert_eq!(nearest("colour", known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
