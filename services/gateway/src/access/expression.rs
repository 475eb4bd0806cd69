//! Conditions in the Common Expression Language. What they may name and how involved they may be is checked when they
//! are read, and what they may cost with the arguments at hand before they are evaluated: they are judged on the way of
//! every call.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
    thread,
};

use cel::{
    Context, Env, IdedExpr, Program, Value as Cel,
    common::ast::{EntryExpr, Expr, LiteralValue},
    objects::Key,
};
use echotune_kit::involved::Involved;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::Value;

use crate::{config::Effect, message::Json};

/// Longest condition in bytes.
const MAX_BYTES: usize = 2_048;
/// Brackets within each other, and operators: the parser and the evaluation recurse.
const MAX_BRACKETS: u32 = 12;
const MAX_OPERATORS: u32 = 64;
/// Comprehensions (`exists`, `all`, `filter` …) within each other.
const MAX_NESTED: u32 = 2;
/// Longest arguments in bytes that are read.
const MAX_ARGUMENTS: usize = 64 << 10;
/// Elements that comprehensions may visit.
const MAX_VISITS: u64 = 100_000;
/// Stack of the thread that reads conditions, in bytes.
const STACK: usize = 64 << 20;
/// What a condition may name.
const NAMES: [&str; 8] = ["caller", "server", "kind", "name", "tool", "effect", "scopes", ARGUMENTS];
const ARGUMENTS: &str = "arguments";
/// What is known of a caller.
const OF_CALLER: [&str; 3] = ["id", "name", "role"];
/// Functions that conditions may call: none makes anything long, or looks at a clock.
const FUNCTIONS: [&str; 12] =
    ["bool", "contains", "double", "dyn", "endsWith", "int", "matches", "size", "startsWith", "string", "type", "uint"];

/// What a call is, but for its arguments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) role: &'static str,
    pub(super) server: &'a str,
    pub(super) kind: &'static str,
    pub(super) subject: &'a str,
    pub(super) effect: Effect,
    pub(super) scopes: &'a [String],
}

/// The language.
#[derive(Clone)]
pub(super) struct Language(Arc<Env>);

/// A condition that was read.
#[derive(Debug)]
pub(super) struct Condition {
    program: Program,
    /// Whether it looks at arguments.
    pub(super) is_of_arguments: bool,
    nested: u32,
}

/// What a condition says of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// It cannot be told, and why.
    Unknown(String),
}

impl Language {
    pub(super) fn new() -> Self {
        Self(Arc::new(Env::stdlib()))
    }

    /// Reads conditions, on a thread whose stack holds what the parser does with the worst that is let through.
    pub(super) fn read_all(&self, texts: Vec<String>) -> Vec<Result<Condition, String>> {
        let language = self.clone();
        let read = move || texts.iter().map(|text| language.read(text)).collect();
        let started = thread::Builder::new().name("conditions".to_owned()).stack_size(STACK).spawn(read);
        let ended = started.map(|thread| thread.join());
        match ended {
            Ok(Ok(read)) => read,
            Ok(Err(_)) => vec![Err("its reading broke off".to_owned())],
            Err(cause) => vec![Err(format!("no thread that reads it can be started: {cause}"))],
        }
    }

    fn read(&self, text: &str) -> Result<Condition, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it has {} bytes; at most {MAX_BYTES} are allowed", text.len()));
        }
        check_nesting(text)?;
        let program = self.0.compile(text).map_err(|errors| {
            let why = errors.errors.first().map_or_else(|| "it cannot be read".to_owned(), |error| error.msg.clone());
            format!("it is no expression of CEL: {why}")
        })?;
        let mut names = Names::default();
        names.visit(program.expression(), &mut Vec::new(), 0)?;
        if names.nested > MAX_NESTED {
            return Err(format!("it has more than {MAX_NESTED} comprehensions within each other"));
        }
        let condition = Condition { program, is_of_arguments: names.is_of_arguments, nested: names.nested };
        condition.try_out(self)?;
        Ok(condition)
    }

    /// What conditions see of a call.
    pub(super) fn context(&self, facts: &Facts<'_>) -> Context<'static, 'static> {
        let mut context = Context::with_env(Arc::clone(&self.0));
        let caller = [("id", facts.id), ("name", facts.name), ("role", facts.role)];
        let caller: HashMap<Key, Cel> = caller.map(|(key, value)| (Key::from(key), text(value))).into();
        context.add_variable_from_value("caller", Cel::from(caller));
        context.add_variable_from_value("server", text(facts.server));
        context.add_variable_from_value("kind", text(facts.kind));
        context.add_variable_from_value("name", text(facts.subject));
        context.add_variable_from_value("tool", text(if facts.kind == "tool" { facts.subject } else { "" }));
        let effect = match facts.effect {
            Effect::Reads => "reads",
            Effect::Idempotent => "idempotent",
            Effect::Once => "once",
        };
        context.add_variable_from_value("effect", text(effect));
        let scopes: Vec<Cel> = facts.scopes.iter().map(|scope| text(scope)).collect();
        context.add_variable_from_value("scopes", Cel::List(Arc::new(scopes)));
        context
    }
}

fn text(of: &str) -> Cel {
    Cel::String(Arc::new(of.to_owned()))
}

/// Arguments as conditions see them.
pub(super) struct Arguments {
    value: Cel,
    longest: u64,
}

impl Arguments {
    /// Reads arguments; those of a call without any are empty.
    pub(super) fn read(arguments: Option<&Json>) -> Result<Self, String> {
        let Some(json) = arguments else {
            return Ok(Self { value: Cel::from(HashMap::<Key, Cel>::new()), longest: 0 });
        };
        if json.bytes().len() > MAX_ARGUMENTS {
            return Err(format!("its arguments have more than {MAX_ARGUMENTS} bytes, and are not read"));
        }
        if json.read::<Unambiguous>().is_none() {
            return Err("its arguments cannot be read, or a name comes twice in them".to_owned());
        }
        let value: Value = json.read().ok_or_else(|| "its arguments cannot be read".to_owned())?;
        let mut longest = 0;
        Ok(Self { value: to_cel(value, &mut longest), longest })
    }

    pub(super) fn add_to(&self, context: &mut Context<'_, '_>) {
        context.add_variable_from_value(ARGUMENTS, self.value.clone());
    }
}

/// JSON in which no name of an object comes twice: of two values a condition would see one, and the server perhaps the
/// other.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Unambiguous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }

            fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Unambiguous, A::Error> {
                while parts.next_element::<Unambiguous>()?.is_some() {}
                Ok(Unambiguous)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Unambiguous, A::Error> {
                let mut known = HashSet::new();
                while let Some((name, _)) = members.next_entry::<String, Unambiguous>()? {
                    if !known.insert(name) {
                        return Err(A::Error::custom("a name comes twice"));
                    }
                }
                Ok(Unambiguous)
            }
        }
        from.deserialize_any(Parts)
    }
}

fn to_cel(value: Value, longest: &mut u64) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(value),
        // Whole numbers are all of one type, as they are written in conditions.
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::Float(number.as_f64().unwrap_or(f64::NAN)), Cel::Int)
        }
        Value::String(text) => Cel::String(Arc::new(text)),
        Value::Array(items) => {
            *longest = (*longest).max(items.len() as u64);
            Cel::List(Arc::new(items.into_iter().map(|item| to_cel(item, longest)).collect()))
        }
        Value::Object(map) => {
            *longest = (*longest).max(map.len() as u64);
            let entries = map.into_iter().map(|(key, value)| (Key::from(key), to_cel(value, longest)));
            Cel::from(entries.collect::<HashMap<Key, Cel>>())
        }
    }
}

impl Condition {
    /// What it says where `context` holds what it may name. Arguments may be absent: then it says what follows without.
    pub(super) fn holds(&self, context: &Context<'_, '_>, arguments: Option<&Arguments>) -> Holds {
        if arguments.is_some_and(|arguments| arguments.longest.saturating_pow(self.nested) > MAX_VISITS) {
            return Holds::Unknown(format!("it would look at more than {MAX_VISITS} parts of the arguments"));
        }
        match self.program.execute(context) {
            Ok(Cel::Bool(true)) => Holds::Yes,
            Ok(Cel::Bool(false)) => Holds::No,
            Ok(_) => Holds::Unknown("it gives neither true nor false".to_owned()),
            Err(cause) => Holds::Unknown(cause.to_string()),
        }
    }

    /// Judges a made-up call, so that what can never be judged is told at the start.
    fn try_out(&self, language: &Language) -> Result<(), String> {
        let scopes = ["scope".to_owned()];
        let facts = Facts {
            id: "00000000-0000-7000-8000-000000000000",
            name: "somebody",
            role: "reader",
            server: "server",
            kind: "tool",
            subject: "tool",
            effect: Effect::Reads,
            scopes: &scopes,
        };
        match self.program.execute(&language.context(&facts)) {
            Ok(Cel::Bool(_)) => Ok(()),
            Ok(_) => Err("it gives neither true nor false".to_owned()),
            // That there are none here is no fault of its.
            Err(_) if self.is_of_arguments => Ok(()),
            Err(cause) => Err(format!("it cannot be evaluated: {cause}")),
        }
    }
}

/// Refuses what would take the parser or the evaluation too deep.
fn check_nesting(text: &str) -> Result<(), String> {
    let involved = Involved::of(text);
    // Each of `==`, `&&` and `||` counts twice.
    if involved.brackets > MAX_BRACKETS || involved.operators > MAX_OPERATORS * 2 {
        return Err(format!(
            "it is too involved; use at most {MAX_BRACKETS} brackets within each other and {MAX_OPERATORS} operators, or \
             split it into several rules"
        ));
    }
    Ok(())
}

/// What a condition names.
#[derive(Default)]
struct Names {
    is_of_arguments: bool,
    nested: u32,
}

impl Names {
    /// `own` are the variables of the comprehensions around.
    fn visit(&mut self, node: &IdedExpr, own: &mut Vec<String>, depth: u32) -> Result<(), String> {
        match &node.expr {
            Expr::Ident(name) => self.ident(name, own),
            Expr::Select(select) => {
                if let Expr::Ident(of) = &select.operand.expr
                    && of == "caller"
                    && !OF_CALLER.contains(&select.field.as_str())
                {
                    let known = OF_CALLER.join(", ");
                    return Err(format!("there is no caller.{}; of a caller are known {known}", select.field));
                }
                self.visit(&select.operand, own, depth)
            }
            Expr::Call(call) => {
                called(&call.func_name, call.args.last())?;
                let parts = call.target.iter().map(AsRef::as_ref).chain(&call.args);
                parts.into_iter().try_for_each(|part| self.visit(part, own, depth))
            }
            Expr::List(list) => list.elements.iter().try_for_each(|element| self.visit(element, own, depth)),
            Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, own, depth)?;
                    self.visit(&entry.value, own, depth)
                }
                EntryExpr::StructField(field) => self.visit(&field.value, own, depth),
            }),
            Expr::Struct(made) => Err(format!("there is no type '{}'", made.type_name)),
            Expr::Comprehension(all) => {
                self.nested = self.nested.max(depth + 1);
                self.visit(&all.iter_range, own, depth)?;
                self.visit(&all.accu_init, own, depth)?;
                let before = own.len();
                own.extend([all.iter_var.clone(), all.accu_var.clone()]);
                own.extend(all.iter_var2.clone());
                for part in [&all.loop_cond, &all.loop_step, &all.result] {
                    self.visit(part, own, depth + 1)?;
                }
                own.truncate(before);
                Ok(())
            }
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
        }
    }

    fn ident(&mut self, name: &str, own: &[String]) -> Result<(), String> {
        let name = name.trim_start_matches('.');
        if name.starts_with('@') || own.iter().any(|known| known == name) {
            return Ok(());
        }
        self.is_of_arguments |= name == ARGUMENTS;
        if NAMES.contains(&name) {
            return Ok(());
        }
        Err(format!("there is no '{name}'; there are {}", NAMES.join(", ")))
    }
}

/// Whether a function may be called. Patterns are written, not given: who gives one decides what it costs.
fn called(name: &str, last: Option<&IdedExpr>) -> Result<(), String> {
    let is_operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
    if !is_operator && !FUNCTIONS.contains(&name) {
        return Err(format!("there is no function '{name}'; there are {}", FUNCTIONS.join(", ")));
    }
    let is_written = last.is_some_and(|last| matches!(&last.expr, Expr::Literal(LiteralValue::String(_))));
    if name == "matches" && !is_written {
        return Err("the pattern of 'matches' has to be written in it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Result<Condition, String> {
        Language::new().read_all(vec![text.to_owned()]).remove(0)
    }

    fn facts() -> Facts<'static> {
        Facts {
            id: "1",
            name: "ann",
            role: "writer",
            server: "files",
            kind: "tool",
            subject: "read_file",
            effect: Effect::Reads,
            scopes: &[],
        }
    }

    fn holds(text: &str, arguments: Option<&Value>) -> Holds {
        let condition = read(text).expect(text);
        let language = Language::new();
        let mut context = language.context(&facts());
        let arguments = arguments.map(|value| Arguments::read(Some(&Json::of(value))).expect("arguments"));
        if let Some(arguments) = &arguments {
            arguments.add_to(&mut context);
        }
        condition.holds(&context, arguments.as_ref())
    }

    #[test]
    fn conditions_see_the_call() {
        let given = json!({"path": "/music/a", "tags": ["x", "y"], "count": 3});
        for text in [
            "caller.name == 'ann' && caller.role == 'writer' && caller.id == '1'",
            "server == 'files' && kind == 'tool' && tool == name && tool == 'read_file' && effect == 'reads'",
            "size(scopes) == 0 && !('a' in scopes)",
            "arguments.path.startsWith('/music/') && arguments.count <= 3",
            "arguments.tags.exists(tag, tag == 'y')",
            "has(arguments.path) && !has(arguments.none)",
            "tool.matches('^read_[a-z]+$')",
        ] {
            assert_eq!(holds(text, Some(&given)), Holds::Yes, "{text}");
        }
        assert_eq!(holds("arguments.count > 3", Some(&given)), Holds::No);
        assert!(matches!(holds("arguments.none == 1", Some(&given)), Holds::Unknown(_)));
    }

    #[test]
    fn without_arguments_it_is_known_what_does_not_hang_on_them() {
        assert_eq!(holds("tool == 'other' && arguments.path == 'a'", None), Holds::No);
        assert_eq!(holds("arguments.path == 'a' && tool == 'other'", None), Holds::No);
        assert_eq!(holds("tool == 'read_file' || arguments.path == 'a'", None), Holds::Yes);
        assert!(matches!(holds("tool == 'read_file' && arguments.path == 'a'", None), Holds::Unknown(_)));
    }

    #[test]
    fn what_cannot_be_a_condition_is_told_when_it_is_read() {
        for (text, told) in [
            ("1 +", "no expression"),
            ("tool", "neither true nor false"),
            ("tool + 1 == 2", "cannot be evaluated"),
            ("caller.password == 'x'", "there is no caller.password"),
            ("user == 'ann'", "there is no 'user'"),
            ("now() > 1", "no function 'now'"),
            ("arguments.a.matches(arguments.b)", "has to be written"),
            (&"(".repeat(13), "too involved"),
            (&format!("{}true", "!".repeat(200)), "too involved"),
            (&"x".repeat(3_000), "at most 2048"),
            ("[1].all(a, [1].all(b, [1].all(c, true)))", "within each other"),
        ] {
            let why = read(text).expect_err(text);
            assert!(why.contains(told), "{text}: {why}");
        }
    }

    #[test]
    fn what_arguments_may_cost_is_bounded() {
        let long = json!({"all": vec![0; 1_000]});
        assert_eq!(holds("arguments.all.all(a, a == 0)", Some(&long)), Holds::Yes);
        let twice = "arguments.all.all(a, arguments.all.all(b, a == b))";
        assert!(matches!(holds(twice, Some(&long)), Holds::Unknown(why) if why.contains("more than")));
        let large = Json::of(&json!({"text": "x".repeat(MAX_ARGUMENTS)}));
        assert!(Arguments::read(Some(&large)).is_err());
    }

    #[test]
    fn arguments_in_which_a_name_comes_twice_are_not_judged() {
        let read = |text: &'static str| {
            let json = Json::taken(&axum::body::Bytes::from_static(text.as_bytes())).expect("JSON");
            Arguments::read(Some(&json)).is_ok()
        };
        assert!(read(r#"{"path": "/music", "in": [{"path": 1.5e3, "n": null}, {"path": [true, -7]}]}"#));
        assert!(!read(r#"{"path": "/secret", "path": "/music"}"#));
        assert!(!read(r#"{"in": [{"path": "/secret", "\u0070ath": "/music"}]}"#));
    }

    #[test]
    fn the_most_involved_that_is_read_is_judged_on_the_stack_of_a_worker() {
        let texts = ["!", "true && ", "false || ", "1 == 1 && ", "1 < 2 && "].map(|part| {
            let times = (1..=200).rev().find(|times| check_nesting(&format!("{}true", part.repeat(*times))).is_ok());
            format!("{}true", part.repeat(times.expect("once")))
        });
        let brackets = format!("{}true{}", "(".repeat(12), ")".repeat(12));
        let judged = thread::Builder::new().stack_size(1 << 20).spawn(move || {
            for text in texts.into_iter().chain([brackets]) {
                assert!(matches!(holds(&text, None), Holds::Yes | Holds::No), "{text}");
            }
        });
        judged.expect("started").join().expect("judged");
    }
}
