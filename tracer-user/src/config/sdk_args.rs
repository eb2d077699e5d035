//! The parameter list of an SDK function, such as `(request_id cstr, item_id cstr)`.

/// Where the ids stand among the arguments of a function, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdkArgs {
    /// Position of the request id.
    pub request_id: u8,
    /// Position of the item id.
    pub item_id: u8,
}

/// Arguments that the C calling convention passes in registers on amd64.
const MAX_ARGUMENTS: usize = 6;

impl SdkArgs {
    /// Reads a parameter list. Each parameter is a name and a type; `request_id` and `item_id` have to
    /// be among them and have to be `cstr`; `int` and `pointer` are for the others.
    ///
    /// # Errors
    /// What is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXAMPLE: &str = "write it like `(request_id cstr, item_id cstr)`";
        let inner = text
            .trim()
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or_else(|| format!("not a parameter list: it needs parentheses; {EXAMPLE}"))?;
        let mut found: [(&str, Option<u8>); 2] = [("request_id", None), ("item_id", None)];
        for (position, parameter) in inner.split(',').enumerate() {
            let mut words = parameter.split_whitespace();
            let (Some(name), Some(kind), None) = (words.next(), words.next(), words.next()) else {
                return Err(format!("\"{}\" is not a name and a type; {EXAMPLE}", parameter.trim()));
            };
            if position >= MAX_ARGUMENTS {
                return Err(format!("more than {MAX_ARGUMENTS} parameters: `{name}` is not in a register"));
            }
            let slot = found.iter_mut().find(|(id, _)| *id == name);
            match (kind, slot) {
                ("cstr", Some((_, Some(_)))) => return Err(format!("`{name}` stands there twice")),
                ("cstr", Some((_, slot))) => *slot = u8::try_from(position).ok(),
                ("cstr" | "int" | "pointer", None) => {}
                (_, Some(_)) => {
                    return Err(format!("`{name}` has the type `{kind}`; an id has to be `cstr`"));
                }
                (_, None) => {
                    return Err(format!("unknown type `{kind}`; known are `cstr`, `int` and `pointer`"));
                }
            }
        }
        match found {
            [(_, Some(request_id)), (_, Some(item_id))] => Ok(Self { request_id, item_id }),
            [(name, None), _] | [_, (name, None)] => Err(format!("no parameter `{name}`; {EXAMPLE}")),
        }
    }
}
