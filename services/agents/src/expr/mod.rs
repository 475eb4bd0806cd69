//! Expressions in the Common Expression Language, and JSON values with expressions in their texts.
//!
//! Evaluation is bounded: by the length of the expression and its nesting when it is read, and by the
//! work that it could do with the values at hand before it begins.

mod names;
mod template;

use std::{collections::BTreeMap, fmt, sync::Arc, thread};

use cel::{Context, Env, Program, Value as Cel, extensions, extractors::This, objects::Key};
use echotune_kit::involved::Involved;
use serde_json::{Map, Number, Value};

pub(crate) use names::Names;
pub(crate) use template::Template;

/// Longest expression, in bytes.
pub(crate) const MAX_EXPRESSION: usize = 2_048;
/// Brackets within each other at the most.
const MAX_BRACKETS: u32 = 24;
/// Operators in one expression at the most.
const MAX_OPERATORS: u32 = 160;
/// Comprehensions (`map`, `filter`, `all` …) within each other at the most.
const MAX_NESTED: u32 = 3;
/// Additions in one expression at the most: each may double a list or text.
const MAX_ADDITIONS: u32 = 64;
/// Elements that an expression may visit at the most.
const MAX_VISITS: u64 = 4_000_000;
/// Bytes of text that an expression may make at the most.
const MAX_MADE: u64 = 64 << 20;
/// Bytes of the JSON that an expression gives at the most.
pub(crate) const MAX_VALUE: usize = 1 << 20;

/// Stack of the threads that read and evaluate expressions, in bytes: both recurse deeply.
const STACK: usize = 64 << 20;

/// Does work with expressions on a thread of its own, off the async threads.
///
/// # Errors
/// The thread cannot be started, or the work broke off.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    thread::Builder::new()
        .name("expressions".into())
        .stack_size(STACK)
        .spawn(move || drop(answer.send(work())))
        .map_err(|cause| format!("no thread for expressions can be started: {cause}"))?;
    answered.await.map_err(|_| "the evaluation of an expression broke off".to_owned())
}

/// What expressions may use.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables {
    /// The input of the workflow.
    pub(crate) input: Arc<Value>,
    /// For whom it runs.
    pub(crate) user: Arc<str>,
    /// Which time the step is taken, from 1.
    pub(crate) attempt: u32,
    /// Results of the steps so far.
    pub(crate) steps: BTreeMap<String, Arc<Value>>,
}

/// The language with its functions.
#[derive(Clone)]
pub(crate) struct Language(Arc<Env>);

impl fmt::Debug for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Language")
    }
}

impl Language {
    pub(crate) fn new() -> Self {
        let mut env = Env::stdlib();
        env.add_extension(extensions::strings).expect("the standard library declares none of these functions");
        env.add_extension(extensions::lists).expect("the standard library declares none of these functions");
        Self(Arc::new(env))
    }

    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(&self, text: &str) -> Result<Expression, String> {
        if text.len() > MAX_EXPRESSION {
            return Err(format!("the expression has {} bytes; at most {MAX_EXPRESSION} are allowed", text.len()));
        }
        check_nesting(text)?;
        let program = self.0.compile(text).map_err(|errors| {
            let why = errors.errors.first().map_or_else(|| "it cannot be read".to_owned(), |error| error.msg.clone());
            format!("'{text}' is no expression of CEL: {why}")
        })?;
        let names = Names::of(program.expression());
        if names.nested > MAX_NESTED || names.additions > MAX_ADDITIONS {
            return Err(format!(
                "'{text}' is too involved; use at most {MAX_NESTED} nested lists and {MAX_ADDITIONS} additions, or split it"
            ));
        }
        Ok(Expression { text: text.to_owned(), names, program: Arc::new(program), language: self.clone() })
    }
}

/// Refuses what would take the parser or the evaluation, which are recursive, too deep.
fn check_nesting(text: &str) -> Result<(), String> {
    let involved = Involved::of(text);
    if involved.brackets > MAX_BRACKETS || involved.operators > MAX_OPERATORS {
        let shown: String = text.chars().take(60).collect();
        return Err(format!(
            "'{shown}…' is too involved; use at most {MAX_BRACKETS} brackets within each other and {MAX_OPERATORS} operators, or split it"
        ));
    }
    Ok(())
}

/// An expression that was read.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    pub(crate) text: String,
    pub(crate) names: Names,
    program: Arc<Program>,
    language: Language,
}

impl Expression {
    /// What it gives with these variables. Takes a while: not for async threads.
    ///
    /// # Errors
    /// Why it gives nothing.
    pub(crate) fn evaluate(&self, variables: &Variables) -> Result<Value, String> {
        let mut context = Context::with_env(Arc::clone(&self.language.0));
        self.language.add_functions(&mut context);
        let mut extent = Extent::default();
        let mut steps = std::collections::HashMap::new();
        for name in &self.names.steps {
            let value = variables.steps.get(name).map_or(&Value::Null, AsRef::as_ref);
            steps.insert(Key::from(name.as_str()), to_cel(value, &mut extent));
        }
        if self.names.roots.contains("input") {
            context.add_variable_from_value("input", to_cel(&variables.input, &mut extent));
        }
        context.add_variable_from_value("steps", Cel::from(steps));
        context.add_variable_from_value("user", variables.user.as_ref());
        context.add_variable_from_value("attempt", i64::from(variables.attempt));
        self.check_work(extent)?;
        let value =
            self.program.execute(&context).map_err(|error| format!("'{}' cannot be evaluated: {error}", self.text))?;
        let mut room = MAX_VALUE;
        to_json(&value, &mut room).map_err(|why| format!("'{}' {why}", self.text))
    }

    /// Refuses what could take too long with values of this extent.
    fn check_work(&self, extent: Extent) -> Result<(), String> {
        let growth = u64::from(self.names.additions) + 1;
        let longest = extent.longest.max(1).saturating_mul(growth);
        let visits = longest.saturating_pow(self.names.nested);
        let Names { additions, nested, makes, stretch, separator, by_values, .. } = self.names;
        let stretched = (stretch + 1).saturating_mul(extent.text.max(1).saturating_pow(by_values));
        // A text of the values, or one that is written, with a separator behind it.
        let longest_text = extent.text.saturating_add(self.text.len() as u64).saturating_add(separator.unwrap_or(0));
        let text = longest_text.saturating_mul(growth).saturating_mul(stretched);
        // A join makes one text of a whole list; comprehensions make theirs for each element.
        let times = if separator.is_some() { visits.max(longest) } else { visits };
        let made = if nested > 0 && additions == 0 && !makes { 0 } else { times.saturating_mul(text) };
        if visits > MAX_VISITS || made > MAX_MADE {
            return Err(format!(
                "'{}' would take too long or make too much: lists of {} entries and texts of {} bytes; make them shorter first",
                self.text, extent.longest, extent.text
            ));
        }
        Ok(())
    }
}

impl Language {
    /// Functions besides those of the language and its extensions.
    fn add_functions(&self, context: &mut Context<'_, '_>) {
        let take = |This(list): This<Arc<Vec<Cel>>>, count: i64| -> Cel {
            list.iter().take(usize::try_from(count).unwrap_or(0)).cloned().collect::<Vec<_>>().into()
        };
        let round = |number: f64, digits: i64| -> f64 {
            let scale = 10_f64.powi(i32::try_from(digits.clamp(0, 12)).unwrap_or(0));
            (number * scale).round() / scale
        };
        context.add_function("take", take).expect("no extension declares 'take'");
        context.add_function("round", round).expect("no extension declares 'round'");
    }
}

/// How large the values of an evaluation are.
#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// Entries of the longest list or map.
    longest: u64,
    /// Bytes of the longest text.
    text: u64,
}

fn to_cel(value: &Value, extent: &mut Extent) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        // Whole numbers are all of one type, so that `50 * attempt` and `size(x) > input.count` have one.
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or(f64::NAN)), Cel::Int)
        }
        Value::String(text) => {
            extent.text = extent.text.max(text.len() as u64);
            Cel::String(Arc::new(text.clone()))
        }
        Value::Array(items) => {
            extent.longest = extent.longest.max(items.len() as u64);
            Cel::List(Arc::new(items.iter().map(|item| to_cel(item, extent)).collect()))
        }
        Value::Object(map) => {
            extent.longest = extent.longest.max(map.len() as u64);
            let entries: std::collections::HashMap<Key, Cel> =
                map.iter().map(|(key, value)| (Key::from(key.as_str()), to_cel(value, extent))).collect();
            Cel::from(entries)
        }
    }
}

fn to_json(value: &Cel, room: &mut usize) -> Result<Value, String> {
    let bytes = match value {
        Cel::String(text) => text.len() + 2,
        _ => 8,
    };
    *room = room.checked_sub(bytes).ok_or_else(|| format!("gives more than {MAX_VALUE} bytes"))?;
    Ok(match value {
        Cel::Null => Value::Null,
        Cel::Bool(value) => (*value).into(),
        Cel::Int(number) => (*number).into(),
        Cel::UInt(number) => (*number).into(),
        Cel::Float(number) => {
            Value::Number(Number::from_f64(*number).ok_or_else(|| format!("gives {number}, which JSON does not have"))?)
        }
        Cel::String(text) => Value::String(text.as_ref().clone()),
        Cel::List(items) => items.iter().map(|item| to_json(item, room)).collect::<Result<_, _>>()?,
        Cel::Map(map) => {
            let mut object = Map::new();
            for (key, value) in map.map.iter() {
                let Key::String(key) = key else { return Err("gives a map whose keys are not texts".into()) };
                *room = room.checked_sub(key.len()).ok_or_else(|| format!("gives more than {MAX_VALUE} bytes"))?;
                object.insert(key.as_ref().clone(), to_json(value, room)?);
            }
            Value::Object(object)
        }
        _ => return Err("gives something that JSON does not have".into()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> Variables {
        Variables {
            input: Arc::new(json!({"count": 2, "share": 0.5})),
            user: "ann".into(),
            attempt: 3,
            steps: [(
                "top".to_owned(),
                Arc::new(json!({"items": [{"artist": "A"}, {"artist": "B"}, {"artist": "A"}]})),
            )]
            .into(),
        }
    }

    fn evaluate(text: &str) -> Result<Value, String> {
        Language::new().read(text)?.evaluate(&variables())
    }

    #[test]
    fn expressions_see_inputs_results_and_attempts() {
        assert_eq!(evaluate("50 * attempt + input.count"), Ok(json!(152)));
        assert_eq!(evaluate("steps.top.items.map(i, i.artist).distinct()"), Ok(json!(["A", "B"])));
        assert_eq!(evaluate("steps.top.items.take(1)"), Ok(json!([{"artist": "A"}])));
        assert_eq!(evaluate("{'who': user, 'half': input.share >= 0.5}"), Ok(json!({"who": "ann", "half": true})));
        assert_eq!(evaluate("double(size(steps.top.items)) / 2.0"), Ok(json!(1.5)));
        assert_eq!(evaluate("round(2.0 / 3.0, 2)"), Ok(json!(0.67)));
        assert_eq!(
            evaluate("steps.top.items.all(i, steps.top.items.filter(j, j.artist == i.artist).size() <= input.count)"),
            Ok(json!(true))
        );
        assert_eq!(evaluate("['a', 'b'].join(', ')"), Ok(json!("a, b")));
        assert_eq!(evaluate("has(steps.top.absent) ? 1 : 2"), Ok(json!(2)));
    }

    #[test]
    fn what_cannot_be_evaluated_says_why() {
        for (text, why) in [
            ("steps.top.absent", "No such key"),
            ("1 / 0", "Division by zero"),
            ("1 +", "is no expression"),
            ("1.0 / 0.0", "JSON does not have"),
            (&"x".repeat(3_000), "at most 2048"),
        ] {
            let error = evaluate(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn work_is_bounded_before_it_begins() {
        let many = Arc::new(json!({"items": vec![0; 10_000]}));
        let variables = Variables { steps: [("top".to_owned(), many)].into(), ..variables() };
        let evaluate = |text: &str| Language::new().read(text).and_then(|read| read.evaluate(&variables));
        assert_eq!(evaluate("steps.top.items.filter(i, i > 0).size()"), Ok(json!(0)));
        let error = evaluate("steps.top.items.map(i, steps.top.items.map(j, i + j))").expect_err("too much");
        assert!(error.contains("too long"), "{error}");
        let deep = "x.map(a, x.map(b, x.map(c, x.map(d, 1))))".replace('x', "steps.top.items");
        assert!(Language::new().read(&deep).expect_err("too deep").contains("too involved"));
        assert!(Language::new().read(&vec!["'a'"; 100].join(" + ")).is_err());
    }

    #[test]
    fn what_texts_are_made_is_bounded_before_it_begins() {
        let input = Arc::new(json!({"text": "a".repeat(60_000), "list": vec![0; 10_000]}));
        let variables = Variables { input, ..variables() };
        let evaluate = |text: &str| Language::new().read(text).and_then(|read| read.evaluate(&variables));
        for expression in [
            "input.text.replace('a', input.text)",
            "input.text.replace('a', 'xxxxxxxxxxxxxxx').replace('x', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy')",
            "input.list.map(i, string(i)).join(input.text)",
            "input.list.map(i, input.text.upperAscii())",
            "input.list.map(i, input.text).join()",
        ] {
            let error = evaluate(expression).expect_err(expression);
            assert!(error.contains("make too much"), "{expression}: {error}");
        }
        assert_eq!(evaluate("input.text.replace('a', 'b').size()"), Ok(json!(60_000)));
        // Only what an expression names counts.
        assert_eq!(evaluate("steps.top.items.map(i, i.artist.lowerAscii()).join(', ')"), Ok(json!("a, b, a")));
        let formats = Language::new().read("'%s%s'.format([input.text, input.text])").expect("an expression");
        assert!(formats.names.unknown_functions.contains("format"), "it makes texts of any length: refused on load");
    }

    #[tokio::test]
    async fn long_chains_and_deep_nests_end_well() {
        apart(read_involved_expressions).await.expect("read");
    }

    fn read_involved_expressions() {
        let language = Language::new();
        let variables = variables();
        for part in ["1==", "1-", "1*", "true&&", "1||", "1<", "1 in ", "!", "-", "a.", "true?1:", "1+", "- -"] {
            for times in [30, 60, 80, 150, 160, 500] {
                let text = format!("{}1", part.repeat(times));
                drop(language.read(&text).and_then(|read| read.evaluate(&variables)));
            }
        }
        for (open, close) in
            [("(", ")"), ("[", "]"), ("size(", ")"), ("{1:", "}"), ("[0][", "]"), ("-(", ")"), ("[1].map(x,", ")")]
        {
            for depth in [3, 10, 24, 25, 300] {
                let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                drop(language.read(&text).and_then(|read| read.evaluate(&variables)));
            }
        }
        for tail in [".a", "[0]", ".size()"] {
            for times in [50, 80, 150, 160, 400] {
                let text = format!("input{}", tail.repeat(times));
                drop(language.read(&text).and_then(|read| read.evaluate(&variables)));
            }
        }
    }
}
