//! Tables that line up, whatever script the names are written in.

use unicode_width::UnicodeWidthStr;

use crate::format::printable;

/// What a cell's text means; shown as a colour on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Worth a look.
    Warn,
    /// Wrong.
    Bad,
}

impl Tone {
    fn colour(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warn => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }

    /// Text in the tone's colour, where colours are wanted.
    pub(crate) fn paint(self, text: &str, coloured: bool) -> String {
        let colour = if coloured { self.colour() } else { "" };
        let end = if colour.is_empty() { "" } else { "\x1b[0m" };
        format!("{colour}{}{end}", printable(text))
    }
}

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What it says.
    pub(crate) text: String,
    /// What it means.
    pub(crate) tone: Tone,
}

impl Cell {
    /// A cell with a meaning.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: printable(&text.into()), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// On which side a column's cells stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table of text.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

const GAP: &str = "  ";

impl Table {
    /// A table without rows. A title that starts with `>` stands on the right, as do the cells below it.
    pub(crate) fn new(titles: &[&'static str]) -> Self {
        let columns = titles.iter().map(|title| match title.strip_prefix('>') {
            Some(title) => (title, Side::Right),
            None => (*title, Side::Left),
        });
        Self { columns: columns.collect(), rows: Vec::new() }
    }

    /// Adds a row; it has as many cells as the table has columns.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        debug_assert_eq!(cells.len(), self.columns.len(), "a cell for every column");
        self.rows.push(cells);
    }

    /// Whether there are no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The titles, for other forms than text.
    pub(crate) fn titles(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|(title, _)| *title)
    }

    /// The rows, for other forms than text.
    pub(crate) fn rows(&self) -> &[Vec<Cell>] {
        &self.rows
    }

    /// The table as lines, each ended by a line break.
    pub(crate) fn render(&self, coloured: bool) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(index, (title, _))| {
                let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.text.width());
                cells.chain([title.width()]).max().unwrap_or(0)
            })
            .collect();
        let titles: Vec<Cell> = self.titles().map(Cell::from).collect();
        let mut out = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for (index, ((cell, (_, side)), width)) in row.iter().zip(&self.columns).zip(&widths).enumerate()
            {
                if index > 0 {
                    line.push_str(GAP);
                }
                let pad = " ".repeat(width - cell.text.width());
                let text = cell.tone.paint(&cell.text, coloured);
                line += &match side {
                    Side::Left => text + &pad,
                    Side::Right => pad + &text,
                };
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", ">SIZE", "STATE"]);
        table.row(vec!["web".into(), "1.0 GiB".into(), Cell::toned("live", Tone::Good)]);
        table.row(vec!["データ".into(), "12 B".into(), Cell::toned("stale", Tone::Bad)]);
        table
    }

    #[test]
    fn columns_line_up_whatever_the_script() {
        assert_eq!(
            table().render(false),
            "NAME       SIZE  STATE\nweb     1.0 GiB  live\nデータ     12 B  stale\n"
        );
    }

    #[test]
    fn colours_take_no_width() {
        let coloured = table().render(true);
        assert!(coloured.contains("\x1b[31mstale\x1b[0m"), "{coloured}");
        let plain = coloured.replace("\x1b[32m", "").replace("\x1b[31m", "").replace("\x1b[0m", "");
        assert_eq!(plain, table().render(false));
    }

    #[test]
    fn a_name_cannot_break_its_row() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["a\nb\x1b[31m".into()]);
        assert_eq!(table.render(false).lines().count(), 2);
        assert!(!table.render(true).contains('\x1b'));
    }
}
