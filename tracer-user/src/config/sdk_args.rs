//! The parameter list of an SDK function, such as `(ctx interface, request_id string, item_id string)`,
//! and which registers its ids come in.

use tracer_common::settings::{C_SLOT_COUNT, C_SLOTS, GO_SLOT_COUNT, GO_SLOTS, IdArgument, IdForm};

/// How a function takes its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Abi {
    /// As C functions do.
    C,
    /// As C++ functions do; a `string` is a libstdc++ `std::string`, by value or by reference.
    Cpp,
    /// As Go functions do since Go 1.17; a `string` is a Go string.
    Go,
    /// As Rust functions do in practice; a `string` is a `&str`.
    Rust,
}

impl Abi {
    /// Every convention.
    pub const ALL: [Self; 4] = [Self::C, Self::Cpp, Self::Go, Self::Rust];

    /// The name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Go => "go",
            Self::Rust => "rust",
        }
    }

    /// First register slot, and how many there are.
    const fn slots(self) -> (u8, u8) {
        match self {
            Self::C | Self::Cpp | Self::Rust => (C_SLOTS, C_SLOT_COUNT),
            Self::Go => (GO_SLOTS, GO_SLOT_COUNT),
        }
    }
}

/// Where the ids stand among the arguments of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdArguments {
    /// The request id.
    pub request_id: IdArgument,
    /// The item id.
    pub item_id: IdArgument,
}

/// Where an id stands among the arguments of a USDT probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsdtArgument {
    /// The argument with its address, from 0.
    pub position: usize,
    /// The argument after that is its length; otherwise it ends with a zero.
    pub has_len: bool,
}

/// Where the ids stand among the arguments of a USDT probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsdtArguments {
    /// The request id.
    pub request_id: UsdtArgument,
    /// The item id.
    pub item_id: UsdtArgument,
}

/// The parameters of a function, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SdkArgs {
    parameters: Vec<(String, String)>,
}

const EXAMPLE: &str = "write it like `(request_id cstr, item_id cstr)`";
const REQUEST_ID: &str = "request_id";
const ITEM_ID: &str = "item_id";

/// What a type takes: register slots, and the form of an id where it can be one.
struct Type {
    slots: u8,
    form: Option<IdForm>,
}

/// The type of that name under a convention; `None` when the convention has none.
fn type_named(name: &str, abi: Abi) -> Option<Type> {
    let plain = |slots| Some(Type { slots, form: None });
    let id = |slots, form| Some(Type { slots, form: Some(form) });
    match (name, abi) {
        ("cstr", _) => id(1, IdForm::CString),
        ("int" | "pointer" | "bool", _) => plain(1),
        // Floating point numbers come in registers of their own.
        ("float", _) => plain(0),
        ("string", Abi::Go | Abi::Rust) => id(2, IdForm::PointerAndLength),
        ("string", Abi::Cpp) => id(1, IdForm::PairInMemory),
        ("bytes", Abi::C | Abi::Cpp | Abi::Rust) => id(2, IdForm::PointerAndLength),
        ("slice", Abi::Go) => id(3, IdForm::PointerAndLength),
        ("interface", Abi::Go) => plain(2),
        _ => None,
    }
}

/// Every name that is a type under some convention.
const TYPES: [&str; 9] = ["cstr", "string", "bytes", "slice", "interface", "int", "pointer", "bool", "float"];

impl SdkArgs {
    /// Reads a parameter list: each parameter is a name and a type, and `request_id` and `item_id` have
    /// to be among them.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let inner = text
            .trim()
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or_else(|| format!("not a parameter list: it needs parentheses; {EXAMPLE}"))?;
        let mut parameters: Vec<(String, String)> = Vec::new();
        for parameter in inner.split(',') {
            let mut words = parameter.split_whitespace();
            let (Some(name), Some(kind), None) = (words.next(), words.next(), words.next()) else {
                return Err(format!("\"{}\" is not a name and a type; {EXAMPLE}", parameter.trim()));
            };
            if !TYPES.contains(&kind) {
                return Err(format!("unknown type `{kind}`; known are {}", TYPES.join(", ")));
            }
            if parameters.iter().any(|(known, _)| known == name) {
                return Err(format!("`{name}` stands there twice"));
            }
            parameters.push((name.to_owned(), kind.to_owned()));
        }
        for id in [REQUEST_ID, ITEM_ID] {
            if !parameters.iter().any(|(name, _)| name == id) {
                return Err(format!("no parameter `{id}`; {EXAMPLE}"));
            }
        }
        Ok(Self { parameters })
    }

    /// Which registers the ids come in under a convention.
    ///
    /// # Errors
    /// A type that the convention does not have, or an id that comes in no register.
    pub fn locate(&self, abi: Abi) -> Result<IdArguments, String> {
        let (first, count) = abi.slots();
        let mut next = 0;
        let mut found = [None, None];
        for (name, kind) in &self.parameters {
            let Some(Type { slots, form }) = type_named(kind, abi) else {
                return Err(format!(
                    "`{name}` has the type `{kind}`, which abi `{}` does not have",
                    abi.name()
                ));
            };
            if let Some(index) = [REQUEST_ID, ITEM_ID].iter().position(|id| id == name) {
                let Some(form) = form else {
                    return Err(format!("`{name}` has the type `{kind}`, which cannot be an id"));
                };
                if next + slots > count {
                    return Err(format!("`{name}` is beyond the {count} registers of abi `{}`", abi.name()));
                }
                found[index] = Some(IdArgument { form, slot: first + next });
            }
            // A Go argument that no longer fits goes to memory whole, and later ones may still fit; for
            // the ids that is of no matter, because what came before them has to have fitted.
            next = next.saturating_add(slots);
        }
        match found {
            [Some(request_id), Some(item_id)] => Ok(IdArguments { request_id, item_id }),
            _ => Err(format!("no parameters `{REQUEST_ID}` and `{ITEM_ID}`; {EXAMPLE}")),
        }
    }

    /// Which arguments of a USDT probe the ids are. It has one for each parameter, and two for `bytes`.
    ///
    /// # Errors
    /// A type that such a probe does not have, or that cannot be an id.
    pub fn locate_usdt(&self) -> Result<UsdtArguments, String> {
        let mut next = 0;
        let mut found = [None, None];
        for (name, kind) in &self.parameters {
            let (count, is_id) = match kind.as_str() {
                "cstr" => (1, true),
                "bytes" => (2, true),
                "int" | "pointer" | "bool" | "float" => (1, false),
                _ => {
                    return Err(format!(
                        "`{name}` has the type `{kind}`, which no USDT probe has; an id there is `cstr`, or `bytes` for two arguments, address and length"
                    ));
                }
            };
            if let Some(index) = [REQUEST_ID, ITEM_ID].iter().position(|id| id == name) {
                if !is_id {
                    return Err(format!("`{name}` has the type `{kind}`, which cannot be an id"));
                }
                found[index] = Some(UsdtArgument { position: next, has_len: count == 2 });
            }
            next += count;
        }
        match found {
            [Some(request_id), Some(item_id)] => Ok(UsdtArguments { request_id, item_id }),
            _ => Err(format!("no parameters `{REQUEST_ID}` and `{ITEM_ID}`; {EXAMPLE}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use tracer_common::settings::{IdArgument, IdForm};

    use super::{Abi, IdArguments, SdkArgs, UsdtArgument};

    #[test]
    fn a_usdt_probe_has_an_argument_for_each_parameter_and_two_for_bytes() {
        let args =
            SdkArgs::parse("(thread int, request_id bytes, score float, item_id cstr)").expect("right");
        let found = args.locate_usdt().expect("right");
        assert_eq!(found.request_id, UsdtArgument { position: 1, has_len: true });
        assert_eq!(found.item_id, UsdtArgument { position: 4, has_len: false });
        for (text, part) in [
            ("(request_id string, item_id cstr)", "which no USDT probe has"),
            ("(request_id int, item_id cstr)", "cannot be an id"),
        ] {
            let message = SdkArgs::parse(text).and_then(|args| args.locate_usdt()).expect_err("is wrong");
            assert!(message.contains(part), "{message}");
        }
    }

    #[track_caller]
    fn check(text: &str, abi: Abi, request_id: (IdForm, u8), item_id: (IdForm, u8)) {
        let argument = |(form, slot)| IdArgument { form, slot };
        let expected = IdArguments { request_id: argument(request_id), item_id: argument(item_id) };
        assert_eq!(SdkArgs::parse(text).and_then(|args| args.locate(abi)), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, abi: Abi, part: &str) {
        match SdkArgs::parse(text).and_then(|args| args.locate(abi)) {
            Ok(found) => panic!("{text} was accepted: {found:?}"),
            Err(message) => assert!(message.contains(part), "{message:?} does not say {part:?}"),
        }
    }

    #[test]
    fn every_convention_has_its_registers() {
        let both = "(request_id cstr, item_id cstr)";
        check(both, Abi::C, (IdForm::CString, 0), (IdForm::CString, 1));
        let strings = "(ctx interface, request_id string, item_id string)";
        check(strings, Abi::Go, (IdForm::PointerAndLength, 10), (IdForm::PointerAndLength, 12));
        let strings = "(this pointer, item_id string, score float, request_id string)";
        check(strings, Abi::Cpp, (IdForm::PairInMemory, 2), (IdForm::PairInMemory, 1));
        check(strings, Abi::Rust, (IdForm::PointerAndLength, 3), (IdForm::PointerAndLength, 1));
        let bytes = "(request_id bytes, item_id bytes)";
        check(bytes, Abi::C, (IdForm::PointerAndLength, 0), (IdForm::PointerAndLength, 2));
    }

    #[test]
    fn what_is_in_no_register_or_no_type_of_the_convention_is_refused() {
        check_refused("(request_id string, item_id cstr)", Abi::C, "abi `c` does not have");
        check_refused("(request_id int, item_id cstr)", Abi::C, "cannot be an id");
        check_refused(
            "(a int, b int, c int, d int, request_id bytes, item_id cstr)",
            Abi::C,
            "beyond the 6 registers",
        );
        check_refused("(request_id cstr)", Abi::C, "no parameter `item_id`");
        check_refused("(request_id cstr, request_id cstr)", Abi::C, "twice");
        check_refused("(request_id text, item_id cstr)", Abi::C, "unknown type `text`");
        check_refused("request_id cstr", Abi::C, "parentheses");
    }
}
