//! Recursive descent over the text; one function a precedence level.

use super::{Expr, MAX_LABEL, SelectorError};
use std::sync::Arc;

/// Deep nesting is refused rather than met with a stack overflow.
const MAX_DEPTH: usize = 200;

pub(super) fn parse(text: &str) -> Result<Expr, SelectorError> {
    let mut p = Parser {
        text,
        at: 0,
        depth: 0,
    };
    p.blanks();
    if p.at == text.len() {
        return Ok(Expr::All);
    }
    let e = p.or()?;
    p.blanks();
    if p.at == text.len() {
        Ok(e)
    } else {
        Err(p.error("unexpected content at end of selector"))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

const fn is_label_char(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'/' | b'-')
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn error(&self, message: impl Into<String>) -> SelectorError {
        SelectorError {
            text: self.text.to_owned(),
            message: message.into(),
            column: self.text[..self.at].chars().count() + 1,
        }
    }

    /// Takes `token` when it is next, after blanks.
    fn take(&mut self, token: &str) -> bool {
        self.blanks();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn or(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.and()?];
        while self.take("||") {
            parts.push(self.and()?);
        }
        Ok(single_or(parts, Expr::Or))
    }

    fn and(&mut self) -> Result<Expr, SelectorError> {
        let mut parts = vec![self.not()?];
        while self.take("&&") {
            parts.push(self.not()?);
        }
        Ok(single_or(parts, Expr::And))
    }

    fn not(&mut self) -> Result<Expr, SelectorError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let e = self.term()?;
        Ok(if negated { Expr::Not(Box::new(e)) } else { e })
    }

    fn term(&mut self) -> Result<Expr, SelectorError> {
        if self.take("(") {
            self.depth += 1;
            if self.depth > MAX_DEPTH {
                return Err(self.error("too many nested parentheses"));
            }
            let e = self.or()?;
            if !self.take(")") {
                return Err(self.error("expected )"));
            }
            self.depth -= 1;
            return Ok(e);
        }
        self.blanks();
        let start = self.at;
        let Some(word) = self.label() else {
            let what = if self.rest().is_empty() {
                "unexpected end of selector"
            } else {
                "expected a label, a function or ("
            };
            return Err(self.error(what));
        };
        if let Some(e) = self.function(word)? {
            return Ok(e);
        }
        if word.len() > MAX_LABEL {
            self.at = start;
            return Err(self.error(format!("label longer than {MAX_LABEL} characters")));
        }
        self.operator(Arc::from(word))
    }

    /// `all()`, `global()` and `has(label)`: the parenthesis follows at once, or after blanks.
    fn function(&mut self, word: &str) -> Result<Option<Expr>, SelectorError> {
        let before = self.at;
        if !matches!(word, "all" | "global" | "has") || !self.take("(") {
            self.at = before;
            return Ok(None);
        }
        self.blanks();
        let e = match word {
            "all" => Expr::All,
            "global" => Expr::Global,
            _ => Expr::Has(Arc::from(
                self.label().ok_or_else(|| self.error("expected a label"))?,
            )),
        };
        if self.take(")") {
            Ok(Some(e))
        } else {
            Err(self.error("expected )"))
        }
    }

    fn operator(&mut self, label: Arc<str>) -> Result<Expr, SelectorError> {
        if self.take("==") {
            return Ok(Expr::Eq(label, self.string()?));
        }
        if self.take("!=") {
            return Ok(Expr::Ne(label, self.string()?));
        }
        self.blanks();
        let at = self.at;
        let first = self.label().unwrap_or("");
        let after_first = self.at;
        self.blanks();
        let second = self.label().unwrap_or("");
        let two = matches!((first, second), ("starts" | "ends", "with") | ("not", "in"));
        if !two {
            self.at = after_first;
        }
        match (first, two) {
            ("contains", _) => Ok(Expr::Contains(label, self.string()?)),
            ("startswith", _) | ("starts", true) => Ok(Expr::StartsWith(label, self.string()?)),
            ("endswith", _) | ("ends", true) => Ok(Expr::EndsWith(label, self.string()?)),
            ("in", _) => Ok(Expr::In(label, self.set()?)),
            ("notin", _) | ("not", true) => Ok(Expr::NotIn(label, self.set()?)),
            _ => {
                self.at = at;
                Err(self.error("expected operator after label"))
            }
        }
    }

    fn label(&mut self) -> Option<&'a str> {
        let n = self
            .rest()
            .bytes()
            .take_while(|b| is_label_char(*b))
            .count();
        let word = &self.rest()[..n];
        self.at += n;
        (n > 0).then_some(word)
    }

    fn string(&mut self) -> Result<Arc<str>, SelectorError> {
        self.blanks();
        let rest = self.rest();
        let Some(q) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            return Err(self.error("expected a quoted string"));
        };
        match rest[1..].find(q) {
            Some(n) => {
                self.at += n + 2;
                Ok(Arc::from(&rest[1..=n]))
            }
            None => Err(self.error("unterminated string")),
        }
    }

    /// `{"a", "b"}`; may be empty and may end with a comma.
    fn set(&mut self) -> Result<Vec<Arc<str>>, SelectorError> {
        if !self.take("{") {
            return Err(self.error("expected {"));
        }
        let mut out = Vec::new();
        while !self.take("}") {
            out.push(self.string()?);
            if !self.take(",") && !self.take("}") {
                return Err(self.error("expected , or }"));
            } else if self.text[..self.at].ends_with('}') {
                break;
            }
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }
}

fn single_or(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.pop() {
        Some(one) if parts.is_empty() => one,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => Expr::All,
    }
}
