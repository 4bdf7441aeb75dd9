//! From a fresh connection to a session that is ready for mail.

use relaypool_api::Domain;
use relaypool_api::reply::{Phase, Reply};
use tokio::io::{AsyncRead, AsyncWrite};

use super::wire::{Step, Wire, is_closing};
use super::{Capabilities, ClientConfig, SessionError, TlsMode};

/// Greets the host and agrees on TLS. Leaves properly when one of them refuses.
pub(super) async fn open<S>(
    stream: S,
    config: &ClientConfig,
    host: &Domain,
) -> Result<(Wire<S>, Capabilities), SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut wire = Wire::new(stream);
    let (capabilities, goes_under_tls) = match introduce(&mut wire, config).await {
        Ok(introduced) => introduced,
        Err(error) => return Err(leave(wire, error, config).await),
    };
    if !goes_under_tls {
        return Ok((wire, capabilities));
    }
    let limit = config.timeouts.tls_handshake;
    let mut wire = wire.start_tls(&config.tls_client, host, config.tls, limit).await?;
    match say_hello(&mut wire, config).await {
        Ok(capabilities) => Ok((wire, capabilities)),
        Err(error) => Err(leave(wire, error, config).await),
    }
}

/// All that is said in clear text. True when the TLS handshake comes next.
async fn introduce<S>(wire: &mut Wire<S>, config: &ClientConfig) -> Result<(Capabilities, bool), SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    await_greeting(wire, config).await?;
    let capabilities = say_hello(wire, config).await?;
    let goes_under_tls = match config.tls {
        TlsMode::Disabled => false,
        TlsMode::Opportunistic | TlsMode::Required if capabilities.starttls => ask_for_tls(wire, config).await?,
        TlsMode::Opportunistic => false,
        TlsMode::Required => return Err(SessionError::TlsNotOffered),
    };
    Ok((capabilities, goes_under_tls))
}

async fn await_greeting<S>(wire: &mut Wire<S>, config: &ClientConfig) -> Result<(), SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let step = Step::new(Phase::Greeting, config.timeouts.greeting);
    let greeting = wire.reply(step).await?;
    if greeting.code.get() == 220 {
        Ok(())
    } else {
        Err(refusal(step, greeting))
    }
}

/// EHLO, and HELO for a host that does not know EHLO (RFC 5321 section 3.2).
async fn say_hello<S>(wire: &mut Wire<S>, config: &ClientConfig) -> Result<Capabilities, SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let step = Step::new(Phase::Ehlo, config.timeouts.ehlo);
    wire.write(format!("EHLO {}\r\n", config.ehlo_name).as_bytes(), step)
        .await;
    let ehlo = wire.raw_reply(step).await?;
    match ehlo.code.get() {
        200..300 => return Ok(Capabilities::from_ehlo(&ehlo)),
        // The codes of an unknown or unimplemented command; any other refusal would meet HELO as well.
        500..=504 => {}
        _ => return Err(refusal(step, ehlo.to_reply())),
    }
    wire.write(format!("HELO {}\r\n", config.ehlo_name).as_bytes(), step)
        .await;
    let helo = wire.reply(step).await?;
    if helo.code.is_positive() {
        Ok(Capabilities::default())
    } else {
        Err(refusal(step, helo))
    }
}

/// STARTTLS. False when the host refuses and clear text will do.
async fn ask_for_tls<S>(wire: &mut Wire<S>, config: &ClientConfig) -> Result<bool, SessionError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let step = Step::new(Phase::StartTls, config.timeouts.ehlo);
    wire.write(&b"STARTTLS\r\n"[..], step).await;
    let reply = wire.reply(step).await?;
    if reply.code.is_positive() {
        return Ok(true);
    }
    let is_refusal = reply.code.is_transient() || reply.code.is_permanent();
    if config.tls == TlsMode::Opportunistic && is_refusal && !is_closing(&reply) {
        tracing::debug!(%reply, "STARTTLS was offered and then refused; going on in clear text");
        return Ok(false);
    }
    Err(refusal(step, reply))
}

/// A reply that ends the attempt: a refusal when it says no, else out of place.
pub(super) fn refusal(step: Step, reply: Reply) -> SessionError {
    if reply.code.is_transient() || reply.code.is_permanent() {
        SessionError::Refused {
            phase: step.phase,
            reply,
        }
    } else {
        SessionError::unexpected(step.phase, reply)
    }
}

/// Ends a session that did not come about. QUIT only where the host still listens (RFC 5321 section 4.1.1.10).
async fn leave<S>(wire: Wire<S>, error: SessionError, config: &ClientConfig) -> SessionError
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let still_listens = match &error {
        SessionError::Refused { reply, .. } => !is_closing(reply),
        SessionError::TlsNotOffered => true,
        _ => false,
    };
    if still_listens {
        wire.quit(config.timeouts.quit).await;
    }
    error
}
