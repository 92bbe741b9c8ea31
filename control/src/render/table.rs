//! Tables without lines, as kubectl prints them.

use comfy_table::{ContentArrangement, Table, presets};

/// A table with aligned columns, one row a line. Cells must be safe to print.
pub fn table<Row>(header: &[&str], rows: impl IntoIterator<Item = Row>) -> String
where
    Row: IntoIterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    for row in rows {
        table.add_row(row.into_iter().collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_not_padded() {
        let rows = [["RF-901", "Drift"], ["RF-9", "日本"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&["ID", "NAME"], rows), "ID      NAME\nRF-901  Drift\nRF-9    日本");
    }
}
