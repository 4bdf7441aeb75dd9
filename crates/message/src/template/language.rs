//! What a template may say.
//!
//! The template engine bounds the number of steps of a template, but not the size of its values nor the depth of its
//! syntax: `{{ "x" * 100000000 }}` takes 100 MB when it is merely compiled, twenty lines of `{% set a = a ~ a %}` take all
//! memory, and a chain of some thousand operators overflows the stack, which ends the process. A Delivery's author must
//! not be able to end a controller or a sender, so a template is examined before it is compiled: tags are short, and an
//! upper bound is computed for the size of every value. Misspelt filters, tests and functions are found on the way,
//! before the first message rather than at it.

use std::collections::HashMap;

use minijinja::machinery::ast::{BinOp, BinOpKind, Call, CallArg, Expr, Filter, ForLoop, Set, Stmt};
use minijinja::machinery::{Token, Tokenizer, WhitespaceConfig, parse};
use minijinja::syntax::SyntaxConfig;

use super::filters::{self, Bound};
use crate::error::{Problem, TemplateError};

/// Largest value of a variable, in bytes.
pub(crate) const LARGEST_VARIABLE: usize = 64 * 1024;

/// Largest value that an expression may make, in bytes.
const LARGEST_VALUE: u64 = 4 * 1024 * 1024;

/// Most tokens in a tag. The engine needs stack in proportion to it.
const MOST_TOKENS: usize = 256;

/// Most `elif` in a template; each nests one level deeper.
const MOST_ELIFS: usize = 100;

/// What `range` yields at most, in bytes: the engine allows 100 000 numbers.
const LARGEST_RANGE: u64 = 100_000 * 7;

pub(super) const TESTS: [&str; 34] = [
    "defined",
    "undefined",
    "none",
    "boolean",
    "odd",
    "even",
    "divisibleby",
    "number",
    "integer",
    "int",
    "float",
    "string",
    "sequence",
    "iterable",
    "mapping",
    "startingwith",
    "endingwith",
    "lower",
    "upper",
    "eq",
    "equalto",
    "ne",
    "lt",
    "lessthan",
    "le",
    "gt",
    "greaterthan",
    "ge",
    "in",
    "true",
    "false",
    "safe",
    "escaped",
    "sameas",
];

/// What a template makes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A header's value, which is one line.
    Header,
    /// A body.
    Body,
}

/// Examines a template; fine ones can be compiled and rendered without danger.
pub(super) fn check(field: &str, source: &str, place: Place) -> Result<(), TemplateError> {
    check_depth(field, source)?;
    let template = parse(source, field, SyntaxConfig, whitespace()).map_err(|error| syntax_error(field, &error))?;
    let mut checker = Checker {
        field,
        place,
        sizes: HashMap::new(),
        branches: 0,
    };
    checker.statement(&template)
}

/// The engine's error about `field`, in its words.
pub(super) fn syntax_error(field: &str, error: &minijinja::Error) -> TemplateError {
    let words = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    TemplateError::at(field, error.line().unwrap_or(1), Problem::Syntax(words))
}

/// As the environment is configured: all white space stays as written.
fn whitespace() -> WhitespaceConfig {
    WhitespaceConfig {
        keep_trailing_newline: true,
        lstrip_blocks: false,
        trim_blocks: false,
    }
}

/// Refuses what would nest too deep. Works on tokens, because the parser and everything behind it recurse.
fn check_depth(field: &str, source: &str) -> Result<(), TemplateError> {
    let mut tokenizer = Tokenizer::new(source, field, false, SyntaxConfig, whitespace());
    let (mut tokens, mut elifs) = (0, 0);
    while let Some((token, span)) = tokenizer.next_token().map_err(|error| syntax_error(field, &error))? {
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => tokens = 0,
            Token::Ident("elif") if tokens == 0 => {
                elifs += 1;
                tokens += 1;
            }
            _ => tokens += 1,
        }
        if tokens > MOST_TOKENS || elifs > MOST_ELIFS {
            let problem = Problem::TooComplex {
                tokens: MOST_TOKENS,
                elifs: MOST_ELIFS,
            };
            return Err(TemplateError::at(field, span.start_line.into(), problem));
        }
    }
    Ok(())
}

/// Walks over a template with what is known of its variables' sizes.
struct Checker<'a> {
    field: &'a str,
    place: Place,
    /// Names that `set` and `for` gave a value; all others are the recipient's.
    sizes: HashMap<&'a str, Bound>,
    /// How many `if` and `for` are open: what is set there may also not be set.
    branches: usize,
}

impl<'a> Checker<'a> {
    fn error<T>(&self, line: u16, problem: Problem) -> Result<T, TemplateError> {
        Err(TemplateError::at(self.field, line.into(), problem))
    }

    fn statements(&mut self, statements: &[Stmt<'a>]) -> Result<(), TemplateError> {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'a>) -> Result<(), TemplateError> {
        let (line, name) = match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitRaw(text) => {
                if self.place == Place::Header && text.raw.contains(char::is_control) {
                    return self.error(text.span().start_line, Problem::ControlCharacter);
                }
                return Ok(());
            }
            Stmt::EmitExpr(emitted) => return self.expression(&emitted.expr).map(drop),
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr)?;
                self.branches += 1;
                self.statements(&condition.true_body)?;
                self.statements(&condition.false_body)?;
                self.branches -= 1;
                return Ok(());
            }
            Stmt::ForLoop(for_loop) if !for_loop.recursive => return self.for_loop(for_loop),
            Stmt::Set(set) => return self.set(set, set.span().start_line),
            Stmt::ForLoop(for_loop) => (for_loop.span(), "a recursive loop"),
            Stmt::WithBlock(block) => (block.span(), "with"),
            Stmt::SetBlock(block) => (block.span(), "set … endset"),
            Stmt::AutoEscape(block) => (block.span(), "autoescape"),
            Stmt::FilterBlock(block) => (block.span(), "filter"),
            Stmt::Block(block) => (block.span(), "block"),
            Stmt::Import(import) => (import.span(), "import"),
            Stmt::FromImport(import) => (import.span(), "import"),
            Stmt::Extends(extends) => (extends.span(), "extends"),
            Stmt::Include(include) => (include.span(), "include"),
            Stmt::Macro(defined) => (defined.span(), "macro"),
            Stmt::CallBlock(call) => (call.span(), "call"),
            Stmt::Do(call) => (call.span(), "do"),
        };
        self.error(line.start_line, Problem::Statement(name))
    }

    /// The engine forgets at each turn what the turn before has set, so nothing grows from turn to turn.
    fn for_loop(&mut self, for_loop: &ForLoop<'a>) -> Result<(), TemplateError> {
        let whole = self.expression(&for_loop.iter)?;
        let item = match &for_loop.iter {
            Expr::Call(_) => Bound::Number,
            _ => Bound::Bytes(whole.bytes()),
        };
        let outside = self.sizes.clone();
        self.branches += 1;
        self.sizes.insert("loop", Bound::Bytes(whole.bytes()));
        self.bind(&for_loop.target, item)?;
        if let Some(filter) = &for_loop.filter_expr {
            self.expression(filter)?;
        }
        self.statements(&for_loop.body)?;
        self.sizes = outside;
        self.statements(&for_loop.else_body)?;
        self.branches -= 1;
        Ok(())
    }

    fn set(&mut self, set: &Set<'a>, line: u16) -> Result<(), TemplateError> {
        let value = self.expression(&set.expr)?;
        let Expr::Var(target) = &set.target else {
            return self.error(line, Problem::Statement("set of several names"));
        };
        let bound = if self.branches == 0 {
            value
        } else {
            value.or(self.variable(target.id))
        };
        self.sizes.insert(target.id, bound);
        Ok(())
    }

    /// Gives the names of a loop's target the bound of its items.
    fn bind(&mut self, target: &Expr<'a>, bound: Bound) -> Result<(), TemplateError> {
        match target {
            Expr::Var(variable) => {
                self.sizes.insert(variable.id, bound);
                Ok(())
            }
            Expr::List(names) => names.items.iter().try_for_each(|name| self.bind(name, bound)),
            other => self.error(other.span().start_line, Problem::Statement("this target of a loop")),
        }
    }

    fn variable(&self, name: &str) -> Bound {
        let unknown = Bound::Bytes(LARGEST_VARIABLE as u64);
        self.sizes.get(name).copied().unwrap_or(unknown)
    }

    /// An upper bound of the value of an expression, or why there is none that is small enough.
    fn expression(&self, expression: &Expr<'a>) -> Result<Bound, TemplateError> {
        let bound = match expression {
            Expr::Var(variable) => self.variable(variable.id),
            Expr::Const(constant) => match constant.value.as_str() {
                Some(text) => Bound::Bytes(text.len() as u64),
                None => Bound::Number,
            },
            Expr::Slice(slice) => {
                for part in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.expression(part)?;
                }
                self.expression(&slice.expr)?
            }
            Expr::UnaryOp(operation) => {
                self.expression(&operation.expr)?;
                Bound::Number
            }
            Expr::BinOp(operation) => self.operation(operation, operation.span().start_line)?,
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr)?;
                for operand in &comparison.ops {
                    self.expression(&operand.expr)?;
                }
                Bound::Number
            }
            Expr::IfExpr(choice) => {
                self.expression(&choice.test_expr)?;
                let one = self.expression(&choice.true_expr)?;
                match &choice.false_expr {
                    Some(other) => one.or(self.expression(other)?),
                    None => one,
                }
            }
            Expr::Filter(filter) => self.filter(filter, filter.span().start_line)?,
            Expr::Test(test) => {
                if !TESTS.contains(&test.name) {
                    return self.error(test.span().start_line, Problem::Test(test.name.to_owned()));
                }
                self.expression(&test.expr)?;
                self.arguments(&test.args)?;
                Bound::Number
            }
            Expr::GetAttr(attribute) => match (&attribute.expr, attribute.name) {
                (
                    Expr::Var(variable),
                    "index" | "index0" | "revindex" | "revindex0" | "length" | "depth" | "depth0",
                ) if variable.id == "loop" && self.sizes.contains_key("loop") => Bound::Number,
                (whole, _) => Bound::Bytes(self.expression(whole)?.bytes()),
            },
            Expr::GetItem(item) => {
                self.expression(&item.subscript_expr)?;
                Bound::Bytes(self.expression(&item.expr)?.bytes())
            }
            Expr::Call(call) => self.call(call, call.span().start_line)?,
            Expr::List(list) => self.sum(&list.items)?,
            Expr::Map(map) => self.sum(&map.keys)?.plus(self.sum(&map.values)?),
        };
        if bound.bytes() > LARGEST_VALUE {
            let problem = Problem::LargeValue { limit: LARGEST_VALUE };
            return self.error(expression.span().start_line, problem);
        }
        Ok(bound)
    }

    fn sum(&self, items: &[Expr<'a>]) -> Result<Bound, TemplateError> {
        items
            .iter()
            .try_fold(Bound::Bytes(0), |sum, item| Ok(sum.plus(self.expression(item)?)))
    }

    fn operation(&self, operation: &BinOp<'a>, line: u16) -> Result<Bound, TemplateError> {
        let (left, right) = (self.expression(&operation.left)?, self.expression(&operation.right)?);
        Ok(match operation.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => left.or(right),
            BinOpKind::Concat => Bound::Bytes(left.bytes().saturating_add(right.bytes())),
            BinOpKind::Add => left.plus(right),
            BinOpKind::Mul => match (left, right) {
                (Bound::Number, Bound::Number) => Bound::Number,
                // A text or list that is repeated a known number of times.
                (Bound::Number, Bound::Bytes(bytes)) => self.repeated(bytes, &operation.left, line)?,
                (Bound::Bytes(bytes), Bound::Number) => self.repeated(bytes, &operation.right, line)?,
                (Bound::Bytes(_), Bound::Bytes(_)) => return self.error(line, Problem::NotNumbers),
            },
            _ => Bound::Number,
        })
    }

    fn repeated(&self, bytes: u64, times: &Expr<'a>, line: u16) -> Result<Bound, TemplateError> {
        match times {
            Expr::Const(constant) => {
                let times = constant.value.as_usize().unwrap_or(1);
                Ok(Bound::Bytes(bytes.saturating_mul(times as u64)))
            }
            _ => self.error(line, Problem::NotNumbers),
        }
    }

    fn filter(&self, filter: &Filter<'a>, line: u16) -> Result<Bound, TemplateError> {
        let Some(input) = &filter.expr else {
            return self.error(line, Problem::Statement("filter"));
        };
        let input = self.expression(input)?;
        let arguments = self.arguments(&filter.args)?;
        match filters::bound(filter.name, input, &arguments) {
            Some(bound) => Ok(bound),
            None => self.error(line, Problem::Filter(filter.name.to_owned())),
        }
    }

    fn call(&self, call: &Call<'a>, line: u16) -> Result<Bound, TemplateError> {
        let arguments = self.arguments(&call.args)?;
        match &call.expr {
            Expr::Var(function) if function.id == "range" && !self.sizes.contains_key("range") => {
                Ok(Bound::Bytes(LARGEST_RANGE))
            }
            Expr::Var(function) => self.error(line, Problem::Function(function.id.to_owned())),
            Expr::GetAttr(method) => match (&method.expr, method.name) {
                (Expr::Var(variable), "cycle") if variable.id == "loop" && self.sizes.contains_key("loop") => {
                    Ok(arguments.into_iter().fold(Bound::Number, Bound::or))
                }
                (_, name) => self.error(line, Problem::Function(name.to_owned())),
            },
            _ => self.error(line, Problem::Function("…".to_owned())),
        }
    }

    fn arguments(&self, arguments: &[CallArg<'a>]) -> Result<Vec<Bound>, TemplateError> {
        arguments
            .iter()
            .map(|argument| match argument {
                CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
                CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                    self.error(value.span().start_line, Problem::Statement("* before an argument"))
                }
            })
            .collect()
    }
}
