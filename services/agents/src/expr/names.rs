use std::collections::BTreeSet;

use cel::{
    IdedExpr,
    common::ast::{EntryExpr, Expr, LiteralValue},
};

/// Functions that expressions may call: none makes a long list out of nothing or looks at a clock.
const FUNCTIONS: [&str; 33] = [
    "bool",
    "ceil",
    "charAt",
    "contains",
    "distinct",
    "double",
    "endsWith",
    "flatten",
    "floor",
    "indexOf",
    "int",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "matches",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "size",
    "slice",
    "sort",
    "split",
    "startsWith",
    "string",
    "substring",
    "take",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "dyn",
];

/// Functions that make texts or lists anew; the others hand on what is there.
const MAKERS: [&str; 12] = [
    "charAt",
    "flatten",
    "join",
    "lowerAscii",
    "replace",
    "reverse",
    "slice",
    "split",
    "string",
    "substring",
    "trim",
    "upperAscii",
];

/// What an expression names, and how involved it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Results it reads: `steps.NAME`.
    pub(crate) steps: BTreeSet<String>,
    /// Variables it reads besides `steps` and those of its own comprehensions.
    pub(crate) roots: BTreeSet<String>,
    /// Functions it calls that are not allowed.
    pub(crate) unknown_functions: BTreeSet<String>,
    /// Whether it uses `steps` other than as `steps.NAME`.
    pub(crate) steps_as_whole: bool,
    /// Comprehensions within each other at the most.
    pub(crate) nested: u32,
    /// Additions, of which each may join two lists or texts.
    pub(crate) additions: u32,
    /// Whether it calls a function that makes texts or lists anew.
    pub(crate) makes: bool,
    /// How many times as long written replacements can make a text, less 1.
    pub(crate) stretch: u64,
    /// Bytes of the longest written separator of a `join`; nothing when there is none.
    pub(crate) separator: Option<u64>,
    /// Replacements and separators that are not written but come from values.
    pub(crate) by_values: u32,
}

/// Bytes of a text that is written in the expression.
fn written(node: Option<&IdedExpr>) -> Option<u64> {
    match node.map(|node| &node.expr) {
        Some(Expr::Literal(LiteralValue::String(text))) => Some(text.inner().len() as u64),
        _ => None,
    }
}

impl Names {
    pub(crate) fn of(expression: &IdedExpr) -> Self {
        let mut names = Self::default();
        names.visit(expression, &mut Vec::new(), 0);
        names
    }

    fn ident(&mut self, name: &str, own: &[String]) {
        let name = name.trim_start_matches('.');
        if name.starts_with('@') || own.iter().any(|known| known == name) {
            return;
        }
        if name == "steps" {
            self.steps_as_whole = true;
        } else {
            self.roots.insert(name.to_owned());
        }
    }

    /// `own` are the variables of the comprehensions around.
    fn visit(&mut self, node: &IdedExpr, own: &mut Vec<String>, depth: u32) {
        match &node.expr {
            Expr::Ident(name) => self.ident(name, own),
            Expr::Select(select) => {
                let hidden = own.iter().any(|known| known == "steps");
                if matches!(&select.operand.expr, Expr::Ident(name) if name.trim_start_matches('.') == "steps" && !hidden)
                {
                    self.steps.insert(select.field.clone());
                } else {
                    self.visit(&select.operand, own, depth);
                }
            }
            Expr::Call(call) => {
                let name = call.func_name.as_str();
                // Macros add to their own list, whose name nobody can write.
                let of_macro = matches!(call.args.first(), Some(first) if matches!(&first.expr, Expr::Ident(name) if name.starts_with('@')));
                if name == "_+_" && !of_macro {
                    self.additions += 1;
                }
                self.makes |= MAKERS.contains(&name);
                match name {
                    // An empty text is found between all letters, so that each grows by what replaces it.
                    "replace" => match written(call.args.get(1)) {
                        Some(bytes) => self.stretch = (self.stretch + 1).saturating_mul(bytes + 1) - 1,
                        None => self.by_values += 1,
                    },
                    "join" if call.args.is_empty() => self.separator = self.separator.max(Some(0)),
                    "join" => match written(call.args.first()) {
                        Some(bytes) => self.separator = self.separator.max(Some(bytes)),
                        None => (self.by_values, self.separator) = (self.by_values + 1, self.separator.max(Some(0))),
                    },
                    _ => {}
                }
                let operator = !name.starts_with(|first: char| first.is_ascii_alphabetic());
                if !operator && !FUNCTIONS.contains(&name) {
                    self.unknown_functions.insert(name.to_owned());
                }
                for part in call.target.iter().map(AsRef::as_ref).chain(&call.args) {
                    self.visit(part, own, depth);
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element, own, depth)),
            Expr::Map(map) => self.entries(&map.entries, own, depth),
            Expr::Struct(made_of) => {
                self.unknown_functions.insert(made_of.type_name.clone());
                self.entries(&made_of.entries, own, depth);
            }
            Expr::Comprehension(all) => {
                self.nested = self.nested.max(depth + 1);
                self.visit(&all.iter_range, own, depth);
                self.visit(&all.accu_init, own, depth);
                let before = own.len();
                own.extend([all.iter_var.clone(), all.accu_var.clone()]);
                own.extend(all.iter_var2.clone());
                for part in [&all.loop_cond, &all.loop_step, &all.result] {
                    self.visit(part, own, depth + 1);
                }
                own.truncate(before);
            }
            Expr::Unspecified | Expr::Literal(_) => {}
        }
    }

    fn entries(&mut self, entries: &[cel::common::ast::IdedEntryExpr], own: &mut Vec<String>, depth: u32) {
        for entry in entries {
            match &entry.expr {
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, own, depth);
                    self.visit(&entry.value, own, depth);
                }
                EntryExpr::StructField(field) => self.visit(&field.value, own, depth),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cel::Program;

    use super::*;

    fn names(text: &str) -> Names {
        Names::of(Program::compile(text).expect("an expression").expression())
    }

    #[test]
    fn names_of_comprehensions_are_their_own() {
        let found = names("steps.a.items.filter(x, x.n > input.n && steps.b.has_x).map(y, y.name + user)");
        assert_eq!(found.steps.into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(found.roots.into_iter().collect::<Vec<_>>(), ["input", "user"]);
        assert_eq!((found.nested, found.additions, found.steps_as_whole), (1, 1, false));
        assert!(found.unknown_functions.is_empty(), "{:?}", found.unknown_functions);
    }

    #[test]
    fn unknown_things_are_found() {
        assert!(names("steps['a']").steps_as_whole);
        assert!(names("now() > 1").unknown_functions.contains("now"));
        assert!(names("lists.range(5)").unknown_functions.contains("range"));
        assert!(names("[1].map(x, [1].filter(z, z == y))").roots.contains("y"));
        assert_eq!(names("[1].map(x, [1].filter(z, z == x))").nested, 2);
    }
}
