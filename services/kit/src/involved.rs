//! How involved a text of an expression language is, told before a recursive parser reads it.

/// What of a text takes a recursive parser and evaluation deeper. Text in quotes counts for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Involved {
    /// Brackets of all kinds that are open within each other at the most.
    pub brackets: u32,
    /// Characters that operators are made of, brackets that close, and the words `in`: `==`, `&&` and `||` count twice.
    pub operators: u32,
}

impl Involved {
    /// Of a text that need not be well formed. Linear in its length.
    pub fn of(text: &str) -> Self {
        let (mut depth, mut involved, mut quote, mut is_escaped) =
            (0_u32, Self { brackets: 0, operators: 0 }, None, false);
        for character in text.chars() {
            match (quote, character) {
                (Some(_), _) if is_escaped => is_escaped = false,
                (Some(_), '\\') => is_escaped = true,
                (Some(open), close) if open == close => quote = None,
                (Some(_), _) => {}
                (None, '\'' | '"') => quote = Some(character),
                (None, '(' | '[' | '{') => depth += 1,
                (None, ')' | ']' | '}') => {
                    depth = depth.saturating_sub(1);
                    involved.operators += 1;
                }
                (None, '.' | '?' | '!' | '-' | '+' | '*' | '/' | '%' | '<' | '>' | '=' | '&' | '|') => {
                    involved.operators += 1;
                }
                (None, _) => {}
            }
            involved.brackets = involved.brackets.max(depth);
        }
        let words = text.split(|one: char| !one.is_alphanumeric()).filter(|word| *word == "in").count();
        involved.operators = involved.operators.saturating_add(u32::try_from(words).unwrap_or(u32::MAX));
        involved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_operators_and_words_count_and_what_is_quoted_does_not() {
        for (text, brackets, operators) in [
            ("", 0, 0),
            ("a == b && !c", 0, 5),
            ("f([{'k': 1}])", 3, 3),
            ("x in y || in", 0, 4),
            (r#"'((((' + "\"((" "#, 0, 1),
            ("))((", 2, 2),
        ] {
            assert_eq!(Involved::of(text), Involved { brackets, operators }, "{text}");
        }
    }
}
