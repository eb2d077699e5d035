//! Conditions of an AnalysisTemplate, as Argo Rollouts evaluates them: the part of the expr language that is used for
//! a result of the Prometheus provider, which is a list of numbers.
//!
//! Types are checked before anything is evaluated, as Argo does: `len(result) == 1 && result < 1` is an error whatever
//! the result is. What is not part of it here (closures, maps, slices) is said to be unknown, not guessed. That this
//! agrees with the expr library itself is held by tests/tests/conditions.rs.

use std::fmt;

/// A condition that was understood, and whose types fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(Expression);

/// Why a condition cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConditionError {
    /// It is not part of the language, or of the part that is known here.
    Unreadable(String),
    /// It reads a field of the result.
    Field(String),
    /// It compares or computes with the list itself.
    ListAsNumber,
    /// It calls something that is not there, or does not take this.
    Call(String),
    /// It is neither true nor false.
    NotBoolean,
    /// Other operands that do not fit.
    Types(String),
}

impl fmt::Display for ConditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(reason) => write!(f, "it cannot be read: {reason}"),
            Self::Field(name) => {
                write!(f, "it reads the field `{name}`, but the result is a list of numbers")
            }
            Self::ListAsNumber => f.write_str(
                "it takes the result for a number, but it is a list: result[0] is the first number",
            ),
            Self::Call(name) => write!(f, "it calls `{name}`, which is not there or does not take this"),
            Self::NotBoolean => f.write_str("it is neither true nor false"),
            Self::Types(operator) => write!(f, "the operands of `{operator}` do not fit"),
        }
    }
}

/// Longer conditions are refused: nesting is as deep as the stack allows.
const MAX_LENGTH: usize = 2_000;

/// The result was shorter than the condition takes for granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange;

#[derive(Debug, Clone, PartialEq)]
enum Expression {
    Number(f64),
    Boolean(bool),
    Result,
    Item(f64),
    Length,
    IsNan(Box<Self>),
    IsInf(Box<Self>),
    Not(Box<Self>),
    Negative(Box<Self>),
    Binary(Operator, Box<Self>, Box<Self>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Plus,
    Minus,
    Times,
    Divide,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Number,
    Boolean,
    List,
}

impl Operator {
    /// Every operator with its spellings, longer ones before those that they begin with.
    const SPELLINGS: [(&'static str, Self); 14] = [
        ("||", Self::Or),
        ("or", Self::Or),
        ("&&", Self::And),
        ("and", Self::And),
        ("==", Self::Equal),
        ("!=", Self::Unequal),
        ("<=", Self::LessOrEqual),
        ("<", Self::Less),
        (">=", Self::GreaterOrEqual),
        (">", Self::Greater),
        ("+", Self::Plus),
        ("-", Self::Minus),
        ("*", Self::Times),
        ("/", Self::Divide),
    ];

    const fn precedence(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And => 2,
            Self::Equal
            | Self::Unequal
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual => 3,
            Self::Plus | Self::Minus => 4,
            Self::Times | Self::Divide => 5,
        }
    }

    fn spelling(self) -> &'static str {
        Self::SPELLINGS.iter().find(|(_, operator)| *operator == self).map_or("", |(spelling, _)| spelling)
    }
}

impl Condition {
    /// Reads a condition and checks its types.
    ///
    /// # Errors
    /// Argo would refuse it, whatever the result is; or it is not known here.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        if text.len() > MAX_LENGTH {
            return Err(ConditionError::Unreadable(format!("it is longer than {MAX_LENGTH} bytes")));
        }
        let mut parser = Parser { rest: text };
        let expression = parser.expression(0)?;
        parser.skip_space();
        if !parser.rest.is_empty() {
            return Err(parser.unreadable());
        }
        match expression.type_of()? {
            Type::Boolean => Ok(Self(expression)),
            Type::Number | Type::List => Err(ConditionError::NotBoolean),
        }
    }

    /// Whether it holds for a result.
    ///
    /// # Errors
    /// It reads beyond the end of the list.
    pub fn holds(&self, result: &[f64]) -> Result<bool, OutOfRange> {
        Ok(self.0.evaluate(result)? != 0.0)
    }

    /// Every number that is written in it.
    pub fn numbers(&self) -> Vec<f64> {
        let mut numbers = Vec::new();
        self.0.collect_numbers(&mut numbers);
        numbers
    }
}

impl Expression {
    fn type_of(&self) -> Result<Type, ConditionError> {
        match self {
            Self::Number(_) | Self::Item(_) | Self::Length => Ok(Type::Number),
            Self::Boolean(_) => Ok(Type::Boolean),
            Self::Result => Ok(Type::List),
            Self::IsNan(of) => of.must_be(Type::Number, "isNaN").map(|()| Type::Boolean),
            Self::IsInf(of) => of.must_be(Type::Number, "isInf").map(|()| Type::Boolean),
            Self::Not(of) => of.must_be(Type::Boolean, "!").map(|()| Type::Boolean),
            Self::Negative(of) => of.must_be(Type::Number, "-").map(|()| Type::Number),
            Self::Binary(operator, left, right) => {
                let (operands, result) = match operator {
                    Operator::Or | Operator::And => (Type::Boolean, Type::Boolean),
                    Operator::Plus | Operator::Minus | Operator::Times | Operator::Divide => {
                        (Type::Number, Type::Number)
                    }
                    Operator::Equal | Operator::Unequal => (left.type_of()?, Type::Boolean),
                    _ => (Type::Number, Type::Boolean),
                };
                let operands = if operands == Type::List { Type::Number } else { operands };
                left.must_be(operands, operator.spelling())?;
                right.must_be(operands, operator.spelling())?;
                Ok(result)
            }
        }
    }

    fn must_be(&self, wanted: Type, operator: &str) -> Result<(), ConditionError> {
        match self.type_of()? {
            found if found == wanted => Ok(()),
            Type::List => Err(ConditionError::ListAsNumber),
            _ => Err(ConditionError::Types(operator.to_owned())),
        }
    }

    /// A boolean is 1 or 0. Types were checked before.
    fn evaluate(&self, result: &[f64]) -> Result<f64, OutOfRange> {
        let truth = |truth: bool| if truth { 1.0 } else { 0.0 };
        Ok(match self {
            Self::Number(number) => *number,
            Self::Boolean(boolean) => truth(*boolean),
            Self::Result => return Err(OutOfRange),
            Self::Item(index) => item(result, *index).ok_or(OutOfRange)?,
            Self::Length => result.len() as f64,
            Self::IsNan(of) => truth(of.evaluate(result)?.is_nan()),
            Self::IsInf(of) => truth(of.evaluate(result)?.is_infinite()),
            Self::Not(of) => truth(of.evaluate(result)? == 0.0),
            Self::Negative(of) => -of.evaluate(result)?,
            Self::Binary(operator, left, right) => {
                let left = left.evaluate(result)?;
                match operator {
                    // The right side is not looked at where the left one decides.
                    Operator::Or if left != 0.0 => return Ok(1.0),
                    Operator::And if left == 0.0 => return Ok(0.0),
                    _ => {}
                }
                let right = right.evaluate(result)?;
                match operator {
                    Operator::Or | Operator::And => right,
                    Operator::Equal => truth(left == right),
                    Operator::Unequal => truth(left != right),
                    Operator::Less => truth(left < right),
                    Operator::LessOrEqual => truth(left <= right),
                    Operator::Greater => truth(left > right),
                    Operator::GreaterOrEqual => truth(left >= right),
                    Operator::Plus => left + right,
                    Operator::Minus => left - right,
                    Operator::Times => left * right,
                    Operator::Divide => left / right,
                }
            }
        })
    }

    fn collect_numbers(&self, numbers: &mut Vec<f64>) {
        match self {
            Self::Number(number) => numbers.push(*number),
            Self::IsNan(of) | Self::IsInf(of) | Self::Not(of) | Self::Negative(of) => {
                of.collect_numbers(numbers)
            }
            Self::Binary(_, left, right) => {
                left.collect_numbers(numbers);
                right.collect_numbers(numbers);
            }
            Self::Boolean(_) | Self::Result | Self::Item(_) | Self::Length => {}
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the parser takes whole numbers only"
)]
fn item(result: &[f64], index: f64) -> Option<f64> {
    result.get(index as usize).copied()
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn expression(&mut self, least: u8) -> Result<Expression, ConditionError> {
        let mut left = self.operand()?;
        while let Some((length, operator)) = self.operator().filter(|(_, op)| op.precedence() > least) {
            self.rest = &self.rest[length..];
            let right = self.expression(operator.precedence())?;
            left = Expression::Binary(operator, Box::new(left), Box::new(right));
        }
        Ok(left)
    }

    fn operator(&mut self) -> Option<(usize, Operator)> {
        self.skip_space();
        let word_end = |spelling: &str| {
            !spelling.starts_with(|c: char| c.is_ascii_alphabetic())
                || !self.rest[spelling.len()..].starts_with(is_name)
        };
        Operator::SPELLINGS
            .iter()
            .find(|(spelling, _)| self.rest.starts_with(spelling) && word_end(spelling))
            .map(|(spelling, operator)| (spelling.len(), *operator))
    }

    fn operand(&mut self) -> Result<Expression, ConditionError> {
        self.skip_space();
        if self.take("(") {
            let inner = self.expression(0)?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("!") {
            return Ok(Expression::Not(Box::new(self.operand()?)));
        }
        if self.take("-") {
            return Ok(Expression::Negative(Box::new(self.operand()?)));
        }
        if self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            return self.number().map(Expression::Number);
        }
        let length = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(length);
        let name = name.to_owned();
        if name.is_empty() {
            return Err(self.unreadable());
        }
        self.rest = rest;
        match name.as_str() {
            "true" => Ok(Expression::Boolean(true)),
            "false" => Ok(Expression::Boolean(false)),
            // It binds to what comes next only: `not a == b` is `(not a) == b`.
            "not" => Ok(Expression::Not(Box::new(self.operand()?))),
            "result" => self.of_result(),
            _ => self.call(name),
        }
    }

    fn of_result(&mut self) -> Result<Expression, ConditionError> {
        self.skip_space();
        if self.take(".") {
            let length = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
            return Err(ConditionError::Field(self.rest[..length].to_owned()));
        }
        if !self.take("[") {
            return Ok(Expression::Result);
        }
        self.skip_space();
        if self.rest.starts_with(['"', '\'']) {
            let name = self.rest[1..].split(['"', '\'']).next().unwrap_or_default();
            return Err(ConditionError::Field(name.to_owned()));
        }
        let index = self.number()?;
        if index.fract() != 0.0 {
            return Err(ConditionError::Unreadable(format!("{index} is no place in a list")));
        }
        self.expect("]")?;
        Ok(Expression::Item(index))
    }

    fn call(&mut self, name: String) -> Result<Expression, ConditionError> {
        if !self.take("(") {
            return Err(ConditionError::Unreadable(format!("`{name}` is not known")));
        }
        let argument = self.expression(0)?;
        self.skip_space();
        if self.rest.starts_with(',') {
            return Err(ConditionError::Call(name));
        }
        self.expect(")")?;
        match (name.as_str(), argument) {
            ("len", Expression::Result) => Ok(Expression::Length),
            ("isNaN", argument) => Ok(Expression::IsNan(Box::new(argument))),
            ("isInf", argument) => Ok(Expression::IsInf(Box::new(argument))),
            _ => Err(ConditionError::Call(name)),
        }
    }

    fn number(&mut self) -> Result<f64, ConditionError> {
        let length = self.rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(self.rest.len());
        let exponent = self.rest[length..].strip_prefix(['e', 'E']).map_or(0, |rest| {
            let sign = usize::from(rest.starts_with(['+', '-']));
            let digits = rest[sign..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - sign);
            if digits == 0 { 0 } else { 1 + sign + digits }
        });
        let number = self.rest[..length + exponent].parse().map_err(|_| self.unreadable())?;
        self.rest = &self.rest[length + exponent..];
        Ok(number)
    }

    fn expect(&mut self, text: &str) -> Result<(), ConditionError> {
        self.skip_space();
        if self.take(text) { Ok(()) } else { Err(self.unreadable()) }
    }

    fn take(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn unreadable(&self) -> ConditionError {
        let place = if self.rest.is_empty() { "its end".to_owned() } else { format!("`{}`", self.rest) };
        ConditionError::Unreadable(format!("not understood at {place}"))
    }
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use super::{Condition, ConditionError};

    #[track_caller]
    fn refused(text: &str) -> ConditionError {
        Condition::parse(text).expect_err(text)
    }

    #[test]
    fn what_can_never_work_is_told_apart() {
        assert_eq!(refused("result.metrics.x > 1"), ConditionError::Field("metrics".into()));
        assert_eq!(refused("result['x'] > 1"), ConditionError::Field("x".into()));
        assert_eq!(refused("result > 0.95"), ConditionError::ListAsNumber);
        assert_eq!(refused("len(result) == 1 && result == 0"), ConditionError::ListAsNumber);
        assert_eq!(refused("result[0]"), ConditionError::NotBoolean);
        assert_eq!(refused("default(result, 0) > 1"), ConditionError::Call("default".into()));
        assert_eq!(refused("len(result) && true"), ConditionError::Types("&&".into()));
        for text in
            ["", "result[0] >", "result[0] > 1 1", "(result[0] > 1", "x > 1", "result[-1] > 1", "1 > é"]
        {
            assert!(matches!(refused(text), ConditionError::Unreadable(_)), "{text}");
        }
    }

    #[test]
    fn a_guard_keeps_the_end_of_the_list_from_being_passed() {
        let guarded = Condition::parse("len(result) == 1 && result[0] < 1").expect("is well formed");
        assert_eq!(guarded.holds(&[]), Ok(false));
        assert_eq!(guarded.holds(&[0.5]), Ok(true));
        assert_eq!(guarded.holds(&[0.5, 0.5]), Ok(false));
        assert!(Condition::parse("result[0] < 1").expect("is well formed").holds(&[]).is_err());
    }
}
