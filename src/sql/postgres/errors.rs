//! Errors for PostgreSQL clients, with their SQLSTATE. Knows nothing of the store's errors.

use pgwire::error::{ErrorInfo, PgWireError, SEVERITY_ERROR};

/// SQLSTATE of a wrong statement.
pub(super) const SYNTAX_OR_ACCESS: &str = "42000";
/// SQLSTATE of every other failure of a query.
pub(super) const INTERNAL: &str = "XX000";
/// SQLSTATE of a parameter's value outside its type.
pub(super) const INVALID_PARAMETER: &str = "22P02";
/// SQLSTATE of a cursor that is not there, or there already.
pub(super) const CURSOR: &str = "34000";
/// SQLSTATE of one client more than there may be.
pub(super) const TOO_MANY: &str = "53300";
/// SQLSTATE of a message against the protocol.
pub(super) const PROTOCOL: &str = "08P01";
/// SQLSTATE of a value without a form on the wire.
pub(super) const NOT_SENT: &str = "22000";

/// An error with this SQLSTATE, message and hint.
pub(super) fn client_error(code: &str, message: &str, hint: Option<&str>) -> PgWireError {
    let mut info = ErrorInfo::new(SEVERITY_ERROR.to_string(), code.to_string(), message.to_string());
    info.hint = hint.map(String::from);
    PgWireError::UserError(Box::new(info))
}
