use std::collections::BTreeMap;

use serde_json::Value;

use super::{Expression, Language, MAX_VALUE, Variables};

/// A JSON value with expressions in its texts: `${ … }` alone gives any value, within other text it
/// gives text.
#[derive(Debug, Clone)]
pub(crate) enum Template {
    /// A value as it is.
    Literal(Value),
    /// What an expression gives.
    Whole(Expression),
    /// A text with expressions in it.
    Text(Vec<Part>),
    /// A list.
    List(Vec<Self>),
    /// A map.
    Map(BTreeMap<String, Self>),
}

/// A part of a text.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    /// As it is.
    Text(String),
    /// What an expression gives.
    Expression(Expression),
}

/// The parts of a text: `Ok` is plain text, `Err` an expression that is still to be read.
fn split(text: &str) -> Result<Vec<Result<&str, &str>>, String> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("${") {
        if start > 0 {
            parts.push(Ok(&rest[..start]));
        }
        let inner = &rest[start + 2..];
        let end = closing(inner).ok_or_else(|| format!("'{text}' has a '${{' without its '}}'; add it"))?;
        parts.push(Err(inner[..end].trim()));
        rest = &inner[end + 1..];
    }
    if !rest.is_empty() {
        parts.push(Ok(rest));
    }
    Ok(parts)
}

/// Where the brace is that closes an expression; braces of maps and within texts are its own.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0_u32, None, false);
    for (index, character) in text.char_indices() {
        if escaped {
            escaped = false;
            continue;
        }
        match (quote, character) {
            (Some(_), '\\') => escaped = true,
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(character),
            (None, '{') => depth += 1,
            (None, '}') if depth == 0 => return Some(index),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

impl Template {
    /// Reads a value. `fault` is told what is wrong, with the JSON pointer of the text.
    pub(crate) fn read(value: &Value, at: &str, language: &Language, fault: &mut impl FnMut(&str, String)) -> Self {
        match value {
            Value::String(text) if text.contains("${") => Self::read_text(text, at, language, fault),
            Value::Array(items) => Self::List(
                (0..)
                    .zip(items)
                    .map(|(index, item)| Self::read(item, &format!("{at}/{index}"), language, fault))
                    .collect(),
            ),
            Value::Object(map) => Self::Map(
                map.iter()
                    .map(|(key, value)| {
                        (key.clone(), Self::read(value, &crate::workflow::join(at, key), language, fault))
                    })
                    .collect(),
            ),
            plain => Self::Literal(plain.clone()),
        }
    }

    fn read_text(text: &str, at: &str, language: &Language, fault: &mut impl FnMut(&str, String)) -> Self {
        let parts = split(text).unwrap_or_else(|why| {
            fault(at, why);
            Vec::new()
        });
        let mut read = Vec::new();
        for part in parts {
            match part.map_err(|expression| language.read(expression)) {
                Ok(plain) => read.push(Part::Text(plain.to_owned())),
                Err(Ok(expression)) => read.push(Part::Expression(expression)),
                Err(Err(why)) => fault(at, why),
            }
        }
        match read.as_mut_slice() {
            [Part::Expression(only)] => Self::Whole(only.clone()),
            _ => Self::Text(read),
        }
    }

    /// Every expression in it, with the JSON pointer of its text.
    pub(crate) fn each(&self, at: &str, visit: &mut impl FnMut(&str, &Expression)) {
        match self {
            Self::Literal(_) => {}
            Self::Whole(expression) => visit(at, expression),
            Self::Text(parts) => {
                for part in parts {
                    if let Part::Expression(expression) = part {
                        visit(at, expression);
                    }
                }
            }
            Self::List(items) => (0..).zip(items).for_each(|(index, item)| item.each(&format!("{at}/{index}"), visit)),
            Self::Map(map) => map.iter().for_each(|(key, item)| item.each(&crate::workflow::join(at, key), visit)),
        }
    }

    /// The value, when there is no expression in it.
    pub(crate) fn literal(&self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::Whole(_) | Self::Text(_) => None,
            Self::List(items) => items.iter().map(Self::literal).collect::<Option<Vec<_>>>().map(Value::Array),
            Self::Map(map) => map
                .iter()
                .map(|(key, item)| Some((key.clone(), item.literal()?)))
                .collect::<Option<serde_json::Map<_, _>>>()
                .map(Value::Object),
        }
    }

    /// What it gives with these variables. Takes a while: not for async threads.
    ///
    /// # Errors
    /// Which expression gives nothing, and why.
    pub(crate) fn evaluate(&self, variables: &Variables) -> Result<Value, String> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Whole(expression) => expression.evaluate(variables)?,
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Text(plain) => text.push_str(plain),
                        Part::Expression(expression) => match expression.evaluate(variables)? {
                            Value::String(inner) => text.push_str(&inner),
                            other => text.push_str(&other.to_string()),
                        },
                    }
                    if text.len() > MAX_VALUE {
                        return Err(format!("a text has more than {MAX_VALUE} bytes"));
                    }
                }
                Value::String(text)
            }
            Self::List(items) => items.iter().map(|item| item.evaluate(variables)).collect::<Result<_, _>>()?,
            Self::Map(map) => Value::Object(
                map.iter()
                    .map(|(key, item)| Ok((key.clone(), item.evaluate(variables)?)))
                    .collect::<Result<_, String>>()?,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> (Template, Vec<(String, String)>) {
        let mut faults = Vec::new();
        let template = Template::read(value, "", &Language::new(), &mut |at, why| faults.push((at.to_owned(), why)));
        (template, faults)
    }

    #[test]
    fn expressions_stand_alone_or_in_text() {
        let variables = Variables { user: "ann".into(), attempt: 2, ..Variables::default() };
        let (template, faults) = read(&json!({
            "whole": "${ [attempt, 1] }", "text": "for ${user}, time ${ attempt }", "braces": "${ {'a': '}'} }", "plain": [1, "x"],
        }));
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(
            template.evaluate(&variables),
            Ok(json!({"whole": [2, 1], "text": "for ann, time 2", "braces": {"a": "}"}, "plain": [1, "x"]}))
        );
        assert_eq!(template.literal(), None);
    }

    #[test]
    fn all_faults_are_told_with_their_places() {
        let (_, faults) = read(&json!({"a": "${ 1 + }", "b": ["${ open", "${ 1 } and ${ ) }"]}));
        assert_eq!(faults.iter().map(|(at, _)| at.as_str()).collect::<Vec<_>>(), ["/a", "/b/0", "/b/1"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let (template, faults) = read(&Value::String(text.clone()));
            if !text.contains("${") {
                prop_assert!(faults.is_empty());
                prop_assert_eq!(template.literal(), Some(Value::String(text)));
            }
        }

        #[test]
        fn a_quoted_text_comes_back(text in "[a-z{}$ ]{0,40}") {
            let (template, faults) = read(&Value::String(format!("${{ '{text}' }}")));
            prop_assert!(faults.is_empty(), "{:?}", faults);
            prop_assert_eq!(template.evaluate(&Variables::default()), Ok(Value::String(text)));
        }
    }
}
