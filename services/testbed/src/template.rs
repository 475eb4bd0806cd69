//! Configuration files with places to fill in.

/// Puts values into the places `@NAME@` of a template.
pub(crate) fn render(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}
