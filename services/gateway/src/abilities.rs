use serde_json::{Value, json};

use crate::message::{Json, Object};

/// What a client can be asked for, as far as this gateway passes it on: one byte, so that sessions stay short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Abilities(pub(crate) u8);

const SAMPLING: u8 = 1;
const SAMPLING_TOOLS: u8 = 2;
const SAMPLING_CONTEXT: u8 = 4;
const FORM: u8 = 8;
const URL: u8 = 16;
const ROOTS: u8 = 32;

/// An extension in whose course clients ask for something by a name that its server gave: the gateway could not tell of
/// which server it is, so that no server may begin with it.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// What a client declares, as far as it is passed on to servers.
pub(crate) fn passed_on(capabilities: Json) -> Json {
    // Few clients have it, and all requests declare something.
    if !capabilities.bytes().windows(TASKS.len()).any(|part| part == TASKS.as_bytes()) {
        return capabilities;
    }
    let Ok(mut declared) = Object::read(&capabilities) else { return capabilities };
    if let Some(mut extensions) = declared.object("extensions") {
        extensions.remove(TASKS);
        declared.set("extensions", extensions.write());
    }
    declared.write()
}

impl Abilities {
    /// What `capabilities` declares. An empty `elicitation` stands for forms (2026-07-28, Elicitation, "Capabilities").
    pub(crate) fn read(capabilities: Option<&Json>) -> Self {
        let declared = capabilities.and_then(|json| Object::read(json).ok()).unwrap_or_default();
        let mut flags = 0;
        if let Some(sampling) = declared.object("sampling") {
            flags |= SAMPLING;
            flags |= if sampling.get("tools").is_some() { SAMPLING_TOOLS } else { 0 };
            flags |= if sampling.get("context").is_some() { SAMPLING_CONTEXT } else { 0 };
        }
        if let Some(elicitation) = declared.object("elicitation") {
            flags |= if elicitation.get("url").is_some() { URL } else { FORM };
            flags |= if elicitation.get("form").is_some() { FORM } else { 0 };
        }
        flags |= if declared.get("roots").is_some() { ROOTS } else { 0 };
        Self(flags)
    }

    /// Whether the client can have an address opened.
    pub(crate) const fn opens_addresses(self) -> bool {
        self.has(URL)
    }

    const fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    /// The capabilities to declare to a server.
    pub(crate) fn declared(self) -> Value {
        let mut declared = json!({});
        if self.has(SAMPLING) {
            declared["sampling"] = json!({});
            for (flag, name) in [(SAMPLING_TOOLS, "tools"), (SAMPLING_CONTEXT, "context")] {
                if self.has(flag) {
                    declared["sampling"][name] = json!({});
                }
            }
        }
        for (flag, name) in [(FORM, "form"), (URL, "url")] {
            if self.has(flag) {
                declared["elicitation"][name] = json!({});
            }
        }
        if self.has(ROOTS) {
            declared["roots"] = json!({});
        }
        declared
    }

    /// What the client lacks to be asked this: the capability as it would be declared.
    pub(crate) fn lacks(self, method: &str, params: Option<&Json>) -> Option<Value> {
        let params = Object::read_optional(params).unwrap_or_default();
        let needed = match method {
            "roots/list" => Self(ROOTS),
            "sampling/createMessage" if params.get("tools").is_some() => Self(SAMPLING | SAMPLING_TOOLS),
            "sampling/createMessage" => Self(SAMPLING),
            "elicitation/create" if params.text("mode").as_deref() == Some("url") => Self(URL),
            "elicitation/create" => Self(FORM),
            _ => return Some(json!({})),
        };
        (needed.0 & !self.0 != 0).then(|| needed.declared())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_not_passed_on_and_all_else_is() {
        let declared = json!({"sampling": {}, "extensions": {TASKS: {}, "example/other": {"a": 1}}});
        let passed: Value = passed_on(Json::of(&declared)).read().expect("JSON");
        assert_eq!(passed, json!({"sampling": {}, "extensions": {"example/other": {"a": 1}}}));
        let plain = Json::of(&json!({"extensions": {"example/other": {}}}));
        assert_eq!(passed_on(plain.clone()), plain);
    }

    #[test]
    fn what_is_declared_comes_back_and_is_all_that_may_be_asked() {
        for flags in 0..64 {
            let abilities = Abilities(flags);
            let sampling = abilities.has(SAMPLING) || !abilities.has(SAMPLING_TOOLS | SAMPLING_CONTEXT);
            if sampling {
                assert_eq!(Abilities::read(Some(&Json::of(&abilities.declared()))), abilities);
            }
        }
        let forms = Abilities::read(Some(&Json::of(&json!({"elicitation": {}}))));
        assert_eq!(forms, Abilities(FORM));
        let link = Json::of(&json!({"mode": "url"}));
        assert_eq!(forms.lacks("elicitation/create", None), None);
        assert_eq!(forms.lacks("elicitation/create", Some(&link)), Some(json!({"elicitation": {"url": {}}})));
        assert_eq!(forms.lacks("roots/list", None), Some(json!({"roots": {}})));
        assert!(forms.lacks("tools/call", None).is_some(), "not a request to clients");
    }
}
