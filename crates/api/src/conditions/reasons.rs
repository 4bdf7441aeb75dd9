//! Why a condition has its status: one closed set of reasons for each kind. Their names are part of the API.

use std::fmt;

/// A reason of one kind's conditions.
pub trait Reason: Copy + fmt::Debug {
    /// The name in `reason`.
    fn as_str(self) -> &'static str;

    /// What it means: the message where nothing more is to be said.
    fn description(self) -> &'static str;
}

/// Declares the reasons of each kind, and adds those that every kind has.
macro_rules! reasons {
    ($($(#[doc = $enum_doc:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident,)+ })+) => {$(
        described! {
            $(#[doc = $enum_doc])+
            $name {
                $($(#[doc = $doc])+ $variant,)+
                /// Not looked at yet.
                Pending,
                /// A rule between fields is broken; the message names each.
                InvalidSpec,
                /// Something that the object needs is not there in this version; the message names it.
                NotInThisVersion,
                /// Fields are set that this version accepts but does not act upon; the message names them.
                FieldsNotInEffect,
            }
        }

        impl Reason for $name {
            fn as_str(self) -> &'static str {
                self.as_str()
            }

            fn description(self) -> &'static str {
                self.description()
            }
        }
    )+};
}

reasons! {
    /// Reasons of a RelayPool's conditions.
    RelayPoolReason {
        /// Every sender reported within the last minute.
        SendersReporting,
        /// `replicas` is 0: nothing is sent, as asked.
        ScaledToZero,
        /// Not every sender has reported within the last minute.
        WaitingForSenders,
        /// No SendingIp names the pool: nothing can be sent.
        NoSendingIp,
        /// Something that the pool refers to (a Secret, a storage class) is not there.
        ReferenceNotFound,
    }
    /// Reasons of a SendingIp's conditions.
    SendingIpReason {
        /// A sender owns the address.
        Assigned,
        /// `suspend` is set: nothing is sent from the address, as asked.
        Suspended,
        /// Sites refuse mail from the address; the message names some of them, and until when nothing is sent to each.
        RefusedBySites,
        /// The pool has no sender that could own the address yet.
        WaitingForSender,
        /// The sender that owns the address has not reported within the last minute.
        SenderNotReporting,
        /// There is no RelayPool of that name.
        PoolNotFound,
        /// A provider refused mail for reputation or rate; the message says which, and with what reply.
        ProviderRefused,
        /// Another SendingIp has the same address.
        DuplicateAddress,
        /// The address resolves to the EHLO name and the name back to the address.
        Confirmed,
        /// The address resolves to no name (no PTR record).
        NoPointer,
        /// The address resolves to another name than the EHLO name.
        PointerDiffers,
        /// The EHLO name does not resolve to the address.
        ForwardDiffers,
        /// A DNS server did not answer.
        LookupFailed,
    }
    /// Reasons of an MxPolicy's conditions.
    MxPolicyReason {
        /// The policy is in force.
        Accepted,
        /// Another policy has the same masks and priority and sets the same fields.
        SameMasksAndPriority,
    }
    /// Reasons of a DkimKey's conditions.
    DkimKeyReason {
        /// The key is there and can sign.
        KeyLoaded,
        /// The Secret is not there.
        SecretNotFound,
        /// The Secret lacks the entry.
        EntryNotFound,
        /// The entry is no private key in PEM.
        KeyUnreadable,
        /// The private key is of another algorithm than the one asked for.
        WrongAlgorithm,
        /// The private key is too short: RSA needs 1024 bits at least (RFC 8301), 2048 are usual.
        KeyTooShort,
        /// Another DkimKey has the same domain and selector.
        DuplicateRecord,
        /// DNS has the record.
        RecordFound,
        /// DNS has no record of that name.
        RecordMissing,
        /// DNS has a record with another key.
        RecordDiffers,
        /// A DNS server did not answer.
        LookupFailed,
    }
    /// Reasons of a Delivery's conditions.
    DeliveryReason {
        /// Accepted and planned.
        Planned,
        /// The plan is being made.
        Planning,
        /// There is no RelayPool of that name.
        PoolNotFound,
        /// The pool has no SendingIp that the Delivery may use.
        NoSendingIp,
        /// The ConfigMap, Secret or entry with recipients is not there.
        RecipientsNotFound,
        /// The list of recipients cannot be read.
        InvalidRecipients,
        /// The list has no recipient that could get the mail.
        NoRecipients,
        /// A template does not compile.
        InvalidTemplate,
        /// The ConfigMap, Secret or entry with an attachment is not there.
        AttachmentNotFound,
        /// An attachment cannot be read.
        InvalidAttachment,
        /// The message is too large for one object.
        TooLarge,
        /// A DkimKey of the sender's domain is not Ready.
        DkimKeyNotReady,
        /// No DkimKey has the sender's domain.
        NoDkimKey,
        /// The same run has been before; another `runId` makes it another run.
        AlreadyRan,
        /// The message or the recipients were changed after the start: the run goes on as it was planned.
        ChangedAfterStart,
        /// The validity asked for is longer than 84h.
        LongerThan84Hours,
        /// Messages are still on their way.
        InProgress,
        /// Every message came to its end.
        AllMessagesEnded,
        /// The Delivery was canceled, and every message came to its end.
        Canceled,
    }
    /// Reasons of a DeliverySlice's conditions.
    DeliverySliceReason {
        /// In the sender's spool.
        Accepted,
        /// The sender that owns the slice has not taken it over yet.
        WaitingForSender,
        /// The sender lacks a DKIM key that must sign.
        WaitingForKey,
        /// The message slice is not there yet.
        WaitingForMessage,
        /// The sender's spool takes nothing now, because its disk is full, say.
        SpoolRefused,
        /// The slice cannot be read.
        Malformed,
        /// Messages are still on their way.
        InProgress,
        /// Every message came to its end.
        AllMessagesEnded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The API server's own rule for reasons of conditions.
    fn is_reason_name(name: &str) -> bool {
        name.chars().next().is_some_and(|first| first.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }

    #[test]
    fn names_and_descriptions_are_usable() {
        let all: Vec<(&str, &str)> = RelayPoolReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), reason.description()))
            .chain(
                SendingIpReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), reason.description())),
            )
            .chain(
                MxPolicyReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), reason.description())),
            )
            .chain(
                DkimKeyReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), reason.description())),
            )
            .chain(
                DeliveryReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), reason.description())),
            )
            .chain(
                DeliverySliceReason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), reason.description())),
            )
            .collect();
        for (name, description) in all {
            assert!(is_reason_name(name), "{name}");
            assert!(
                description.ends_with('.') && !description.starts_with(' '),
                "{name}: {description:?}"
            );
        }
        assert_eq!(DeliveryReason::Planned.as_str(), "Planned");
        assert_eq!(DeliveryReason::Planned.description(), "Accepted and planned.");
    }
}
