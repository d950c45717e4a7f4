//! The words of a selector: names, signs and quoted texts, with blanks and comments between them.

/// A place in the text of a selector.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let mut scanner = Self { text, at: 0 };
        scanner.skip_blanks();
        scanner
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest().is_empty()
    }

    /// Whether the next word is this sign.
    pub(super) fn at(&self, sign: &str) -> bool {
        self.rest().starts_with(sign)
    }

    /// Passes this sign, if it is the next word.
    pub(super) fn take(&mut self, sign: &str) -> bool {
        let found = self.at(sign);
        if found {
            self.pass(sign.len());
        }
        found
    }

    /// Passes a name, if one is next. Those of metrics may have colons.
    pub(super) fn name(&mut self, colons: bool) -> Option<&'a str> {
        let belongs =
            |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || (colons && letter == ':');
        let rest = self.rest();
        let length = rest.find(|letter| !belongs(letter)).unwrap_or(rest.len());
        if length == 0 || rest.starts_with(|first: char| first.is_ascii_digit()) {
            return None;
        }
        self.pass(length);
        Some(&rest[..length])
    }

    /// Passes a text in single, double or back quotes, and hands out what it stands for.
    pub(super) fn quoted(&mut self) -> Result<String, String> {
        let rest = self.rest();
        let quote = rest.chars().next().filter(|first| matches!(first, '"' | '\'' | '`'));
        let quote = quote.ok_or_else(|| self.wrong("a quoted text is missing"))?;
        let mut value = Vec::new();
        let mut letters = rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.pass(at + 1);
                    return String::from_utf8(value).map_err(|_| self.wrong("the text is no UTF-8"));
                }
                '\n' if quote != '`' => break,
                '\\' if quote != '`' => {
                    let (length, meant) = escape(&rest[at + 1..], quote).ok_or_else(|| {
                        let found: String = rest[at..].chars().take(2).collect();
                        self.wrong_at(self.at + at, &format!("there is no escape `{found}`"))
                    })?;
                    value.extend(meant);
                    // All of them are ASCII.
                    letters.nth(length - 1);
                }
                letter => value.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        Err(self.wrong("the text is not closed"))
    }

    /// What is wrong here.
    pub(super) fn wrong(&self, what: &str) -> String {
        self.wrong_at(self.at, what)
    }

    fn wrong_at(&self, at: usize, what: &str) -> String {
        format!("{}: {what}", self.text[..at].chars().count() + 1)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn pass(&mut self, length: usize) {
        self.at += length;
        self.skip_blanks();
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
            let comment = if rest[blanks..].starts_with('#') {
                rest[blanks..].find('\n').unwrap_or(rest.len() - blanks)
            } else {
                0
            };
            if blanks + comment == 0 {
                return;
            }
            self.at += blanks + comment;
        }
    }
}

/// What stands behind a backslash: how long it is, and the bytes that it means.
fn escape(text: &str, quote: char) -> Option<(usize, Vec<u8>)> {
    let first = text.chars().next()?;
    let one = |byte: u8| Some((1, vec![byte]));
    let number = |from: usize, length: usize, base: u32| {
        let digits = text.get(from..from + length)?;
        // A sign would be taken for a part of the number.
        let number =
            digits.chars().all(|digit| digit.is_digit(base)).then(|| u32::from_str_radix(digits, base))?;
        Some((from + length, number.ok()?))
    };
    let letter =
        |(length, number): (usize, u32)| Some((length, char::from_u32(number)?.to_string().into_bytes()));
    let byte = |(length, number): (usize, u32)| Some((length, vec![u8::try_from(number).ok()?]));
    match first {
        'a' => one(7),
        'b' => one(8),
        'f' => one(12),
        'n' => one(b'\n'),
        'r' => one(b'\r'),
        't' => one(b'\t'),
        'v' => one(11),
        '\\' => one(b'\\'),
        '\'' | '"' if first == quote => one(u8::try_from(first).ok()?),
        'x' => byte(number(1, 2, 16)?),
        'u' => letter(number(1, 4, 16)?),
        'U' => letter(number(1, 8, 16)?),
        '0'..='7' => byte(number(0, 3, 8)?),
        _ => None,
    }
}
