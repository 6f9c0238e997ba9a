//! Tables in calicoctl's two styles: blank-separated columns, and boxes.
//!
//! Promises: byte for byte what scripts that cut calicoctl's output know.

/// Blank-separated columns, each as wide as its widest cell and three blanks, five at least.
/// The last column is padded too.
pub(crate) fn columns(rows: &[Vec<String>]) -> String {
    let widths = widths(rows, |w| (w + 3).max(5));
    let mut out = String::new();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            pad(&mut out, cell, 0, *width);
        }
        out.push('\n');
    }
    out
}

/// A box: headings centred, numbers to the right, everything else to the left.
pub(crate) fn boxed(headings: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    let mut all = vec![head.clone()];
    all.extend_from_slice(rows);
    let widths = widths(&all, |w| w);
    let mut rule = String::from("+");
    for w in &widths {
        rule.extend(std::iter::repeat_n('-', w + 2));
        rule.push('+');
    }
    rule.push('\n');
    let mut out = rule.clone();
    line(&mut out, &head, &widths, |cell, width| (width - cell) / 2);
    out.push_str(&rule);
    for row in rows {
        out.push('|');
        for (cell, width) in row.iter().zip(&widths) {
            let left = if is_number(cell) {
                width - length(cell)
            } else {
                0
            };
            out.push(' ');
            pad(&mut out, cell, left, *width);
            out.push_str(" |");
        }
        out.push('\n');
    }
    if !rows.is_empty() {
        out.push_str(&rule);
    }
    out
}

fn line(out: &mut String, cells: &[String], widths: &[usize], left: fn(usize, usize) -> usize) {
    out.push('|');
    for (cell, width) in cells.iter().zip(widths) {
        out.push(' ');
        pad(out, cell, left(length(cell), *width), *width);
        out.push_str(" |");
    }
    out.push('\n');
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

fn widths(rows: &[Vec<String>], of: impl Fn(usize) -> usize) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |i: usize| {
        rows.iter()
            .filter_map(|r| r.get(i))
            .map(|c| length(c))
            .max()
            .unwrap_or(0)
    };
    (0..columns).map(|i| of(widest(i))).collect()
}

fn pad(out: &mut String, cell: &str, left: usize, width: usize) {
    out.extend(std::iter::repeat_n(' ', left));
    out.push_str(cell);
    out.extend(std::iter::repeat_n(
        ' ',
        width.saturating_sub(left + length(cell)),
    ));
}

fn is_number(cell: &str) -> bool {
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = cell.split_once('.').unwrap_or((cell, "0"));
    digits(whole) && digits(fraction)
}

/// A count in five significant digits, as C's `%.5g` writes it.
pub(crate) fn count(n: u128) -> String {
    const DIGITS: usize = 5;
    let exact = n.to_string();
    if exact.len() <= DIGITS {
        return exact;
    }
    #[expect(clippy::cast_precision_loss, reason = "five digits are shown")]
    let text = format!("{:.4e}", n as f64);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    format!("{mantissa}e+{exponent:0>2}")
}

/// A share of a whole: the count, and the percentage without fraction.
pub(crate) fn share(part: u128, whole: u128) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a whole percentage is shown")]
    let percent = if whole == 0 {
        0.0
    } else {
        100.0 * part as f64 / whole as f64
    };
    format!("{} ({percent:.0}%)", count(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|c| (*c).to_owned()).collect()
    }

    #[test]
    fn blank_separated() {
        let t = columns(&[
            row(&["NAME", "X"]),
            row(&["default-ipv4-ippool", ""]),
            row(&["ä", "yy"]),
        ]);
        assert_eq!(
            t,
            "NAME                  X    \ndefault-ipv4-ippool        \nä                     yy   \n"
        );
    }

    #[test]
    fn boxes() {
        let t = boxed(
            &["GROUPING", "CIDR", "TOTAL"],
            &[row(&["IP Pool", "10.65.0.0/16", "64"])],
        );
        assert_eq!(
            t,
            "+----------+--------------+-------+\n\
             | GROUPING |     CIDR     | TOTAL |\n\
             +----------+--------------+-------+\n\
             | IP Pool  | 10.65.0.0/16 |    64 |\n\
             +----------+--------------+-------+\n"
        );
        assert_eq!(boxed(&["A"], &[]), "+---+\n| A |\n+---+\n");
    }

    #[test]
    fn counts_and_shares() {
        let shown: Vec<String> = [0, 64, 65_536, 100_000, 1_048_576, 1 << 80]
            .into_iter()
            .map(count)
            .collect();
        assert_eq!(
            shown,
            ["0", "64", "65536", "1e+05", "1.0486e+06", "1.2089e+24"]
        );
        assert_eq!(share(5, 64), "5 (8%)");
        assert_eq!(share(65_531, 65_536), "65531 (100%)");
        assert_eq!(share(0, 0), "0 (0%)");
    }
}
