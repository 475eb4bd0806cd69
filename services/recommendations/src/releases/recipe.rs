//! What a release is: the options of a fit and of lists, by name, as a text that stays the same.

use std::fmt;

use echotune_engine::{
    blend::BlendOptions,
    terms::{content::ContentOptions, sequence::SequenceOptions, social::SocialOptions},
};
use thiserror::Error;
use uuid::Uuid;

/// Of the hash of a recipe.
const NAMESPACE: Uuid = Uuid::from_u128(0x0d0a_1c5e_6f1b_4c0b_9a51_3a52_5f7e_c0de);
/// Hexadecimal digits of a version.
const DIGITS: usize = 12;

/// The options by which models are fitted and lists made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recipe {
    /// The graph filter and EASE.
    pub blend: BlendOptions,
    /// What follows what.
    pub sequence: SequenceOptions,
    /// Items that few know.
    pub content: ContentOptions,
    /// Friends.
    pub social: SocialOptions,
    /// What the most popular item gains beside the model: 0 to 1.
    pub trending: f64,
}

/// Why a text is no recipe.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum RecipeError {
    /// A line is not `NAME=VALUE` with a number.
    #[error("'{0}' is not NAME=VALUE with a number, such as blend.filter=0.5")]
    Line(String),
    /// No option has this name.
    #[error("no option is named '{name}'; there are {known}")]
    Unknown {
        /// As given.
        name: String,
        /// All there are.
        known: String,
    },
    /// A value is out of range.
    #[error("{name} is {value}; it is {least} to {most}{whole}")]
    Range {
        /// Which option.
        name: &'static str,
        /// As given.
        value: f64,
        /// The least value.
        least: f64,
        /// The greatest value.
        most: f64,
        /// Says so when only whole numbers do.
        whole: &'static str,
    },
}

/// One option of a recipe.
struct Choice {
    name: &'static str,
    least: f64,
    most: f64,
    /// Whether it is a count.
    whole: bool,
    get: fn(&Recipe) -> f64,
    set: fn(&mut Recipe, f64),
}

/// The short decimal that a number of 32 bits is written as.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

/// An option of 32 bits.
macro_rules! real {
    ($name:literal, $least:literal, $most:literal, $($field:ident).+) => {
        Choice {
            name: $name,
            least: $least,
            most: $most,
            whole: false,
            get: |recipe| short(recipe.$($field).+),
            #[expect(clippy::cast_possible_truncation, reason = "options are short numbers")]
            set: |recipe, value| recipe.$($field).+ = value as f32,
        }
    };
}

/// An option that is a count.
macro_rules! count {
    ($name:literal, $least:literal, $most:literal, $($field:ident).+) => {
        Choice {
            name: $name,
            least: $least,
            most: $most,
            whole: true,
            #[expect(clippy::cast_precision_loss, reason = "small counts")]
            get: |recipe| recipe.$($field).+ as f64,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the range above")]
            set: |recipe, value| recipe.$($field).+ = value as usize,
        }
    };
}

/// All of them, in the order of the text. A new one goes where it belongs: what a text lacks is the default.
const CHOICES: [Choice; 22] = [
    real!("blend.filter", 0.0, 100.0, blend.filter_weight),
    real!("blend.ease", 0.0, 100.0, blend.ease_weight),
    real!("blend.tags", 0.0, 1000.0, blend.tags),
    count!("blend.links", 1.0, 4096.0, blend.links),
    real!("filter.user", 0.0, 2.0, blend.filter.user),
    real!("filter.source", 0.0, 2.0, blend.filter.source),
    real!("filter.target", 0.0, 2.0, blend.filter.target),
    real!("filter.low_pass", 0.0, 10.0, blend.filter.low_pass),
    real!("filter.sharpening", 0.0, 10.0, blend.filter.sharpening),
    count!("ease.head", 1.0, 32_768.0, blend.ease.head),
    real!("ease.lambda", 0.001, 1e6, blend.ease.lambda),
    real!("ease.dropout", 0.0, 0.99, blend.ease.dropout),
    real!("ease.target", -2.0, 2.0, blend.ease.target),
    real!("follows.weight", 0.0, 100.0, sequence.weight),
    real!("follows.target", 0.0, 2.0, sequence.target),
    real!("content.weight", 0.0, 100.0, content.weight),
    real!("content.listeners", 0.001, 1e6, content.listeners),
    real!("friends.weight", 0.0, 100.0, social.weight),
    real!("friends.count", 0.0, 2.0, social.friends),
    real!("friends.history", 0.0, 2.0, social.history),
    real!("friends.target", 0.0, 2.0, social.target),
    Choice {
        name: "trending.weight",
        least: 0.0,
        most: 1.0,
        whole: false,
        get: |recipe| recipe.trending,
        set: |recipe, value| recipe.trending = value,
    },
];

impl Recipe {
    /// What serves where nothing was released: the defaults of the engine, and a weight of popularity.
    pub fn built_in(trending: f64) -> Self {
        Self { trending, ..Self::default() }
    }

    /// From its text; what that lacks is the default.
    ///
    /// # Errors
    /// A line that is no option with a value in its range.
    pub fn parse(text: &str) -> Result<Self, RecipeError> {
        let mut recipe = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let no_option = || RecipeError::Line(line.chars().take(80).flat_map(char::escape_debug).collect());
            let (name, value) = line.split_once('=').ok_or_else(no_option)?;
            recipe.set(name.trim(), value.trim().parse().map_err(|_| no_option())?)?;
        }
        Ok(recipe)
    }

    /// Gives an option a value.
    ///
    /// # Errors
    /// No option has the name, or the value is out of its range.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), RecipeError> {
        let choice = CHOICES.iter().find(|choice| choice.name == name).ok_or_else(|| RecipeError::Unknown {
            name: name.chars().take(80).flat_map(char::escape_debug).collect(),
            known: CHOICES.map(|choice| choice.name).join(", "),
        })?;
        let Choice { name, least, most, whole, .. } = *choice;
        if !(least..=most).contains(&value) || (whole && value.fract() != 0.0) {
            let whole = if whole { ", a whole number" } else { "" };
            return Err(RecipeError::Range { name, value, least, most, whole });
        }
        (choice.set)(self, value);
        Ok(())
    }

    /// Every option with its value, in the order of the text.
    pub fn options(&self) -> impl Iterator<Item = (&'static str, f64)> {
        CHOICES.iter().map(|choice| (choice.name, (choice.get)(self)))
    }

    /// The value of an option; none when there is no such option.
    pub fn get(&self, name: &str) -> Option<f64> {
        CHOICES.iter().find(|choice| choice.name == name).map(|choice| (choice.get)(self))
    }

    /// A hash of the text: 12 hexadecimal digits.
    pub fn version(&self) -> String {
        let mut hash = Uuid::new_v5(&NAMESPACE, self.to_string().as_bytes()).simple().to_string();
        hash.truncate(DIGITS);
        hash
    }
}

impl fmt::Display for Recipe {
    /// `NAME=VALUE`, a line for each option.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options().try_for_each(|(name, value)| writeln!(f, "{name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_recipe_is_read_back_and_its_version_hangs_on_every_option() {
        let recipe = Recipe::built_in(0.001);
        let text = recipe.to_string();
        assert!(text.starts_with("blend.filter=0.35\nblend.ease=1\n") && text.contains("trending.weight=0.001\n"));
        assert_eq!(Recipe::parse(&text), Ok(recipe.clone()));
        let mut versions = std::collections::HashSet::from([recipe.version()]);
        for choice in &CHOICES {
            let mut other = recipe.clone();
            let value = if (choice.get)(&recipe) == choice.least { choice.most } else { choice.least };
            other.set(choice.name, value).expect("in range");
            assert_eq!(other.get(choice.name), Some(value), "{}", choice.name);
            assert_eq!(Recipe::parse(&other.to_string()).as_ref(), Ok(&other));
            assert!(versions.insert(other.version()), "{}", choice.name);
        }
        assert!(versions.iter().all(|version| version.len() == DIGITS));
    }

    #[test]
    fn what_a_text_lacks_is_the_default_and_what_is_no_option_is_refused() {
        assert_eq!(Recipe::parse("\n"), Ok(Recipe::default()));
        assert_eq!(Recipe::parse("ease.lambda = 200\n").map(|recipe| recipe.blend.ease.lambda), Ok(200.0));
        let refused = |text: &str| Recipe::parse(text).expect_err("refused").to_string();
        assert!(refused("ease.lamda=200").contains("no option is named 'ease.lamda'; there are blend.filter, "));
        assert!(refused("ease.head=10.5").contains("ease.head is 10.5; it is 1 to 32768, a whole number"));
        assert!(refused("blend.ease=NaN").contains("blend.ease is NaN"));
        assert!(refused("blend.ease=much").contains("'blend.ease=much' is not NAME=VALUE"));
    }
}
