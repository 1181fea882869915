package debugfmt

import (
	"fmt"
	"syscall"

	"ferrotrace/internal/rust/types"
)

// errorKinds are the kinds of the system's errors that have been the same for long
// (std::sys::…::decode_error_kind).
var errorKinds = map[syscall.Errno]string{
	syscall.EADDRINUSE: "AddrInUse", syscall.EADDRNOTAVAIL: "AddrNotAvailable", syscall.ECONNABORTED: "ConnectionAborted",
	syscall.ECONNREFUSED: "ConnectionRefused", syscall.ECONNRESET: "ConnectionReset", syscall.EEXIST: "AlreadyExists",
	syscall.EINTR: "Interrupted", syscall.EINVAL: "InvalidInput", syscall.ENOENT: "NotFound", syscall.ENOTCONN: "NotConnected",
	syscall.EPIPE: "BrokenPipe", syscall.ETIMEDOUT: "TimedOut", syscall.EACCES: "PermissionDenied", syscall.EPERM: "PermissionDenied",
	syscall.EAGAIN: "WouldBlock", syscall.ENOMEM: "OutOfMemory", syscall.EISDIR: "IsADirectory", syscall.ENOTDIR: "NotADirectory",
	syscall.ENOTEMPTY: "DirectoryNotEmpty", syscall.EBUSY: "ResourceBusy",
}

// testedKinds are those that only compilers of the tested eras are known to agree on, and
// erasKinds those that they do not. All others are Uncategorized.
var (
	testedKinds = map[syscall.Errno]string{
		syscall.E2BIG: "ArgumentListTooLong", syscall.EXDEV: "CrossesDevices", syscall.ETXTBSY: "ExecutableFileBusy",
		syscall.EFBIG: "FileTooLarge", syscall.ENOSPC: "StorageFull", syscall.ESPIPE: "NotSeekable", syscall.EROFS: "ReadOnlyFilesystem",
		syscall.EMLINK: "TooManyLinks", syscall.EDEADLK: "Deadlock", syscall.ENAMETOOLONG: "InvalidFilename", syscall.ENOSYS: "Unsupported",
		syscall.ELOOP: "FilesystemLoop", syscall.ENETDOWN: "NetworkDown", syscall.ENETUNREACH: "NetworkUnreachable",
		syscall.EHOSTUNREACH: "HostUnreachable", syscall.ESTALE: "StaleNetworkFileHandle",
	}
	erasKinds = map[types.Era]map[syscall.Errno]string{
		types.Old: {syscall.EDQUOT: "FilesystemQuotaExceeded"},
		types.New: {syscall.EDQUOT: "QuotaExceeded", syscall.EOPNOTSUPP: "Unsupported", syscall.EINPROGRESS: "InProgress"},
	}
)

// errorKind is the name of the ErrorKind of a system's error; "" if it is not known.
func errorKind(code int32, e types.Era) string {
	no := syscall.Errno(uint32(code))
	for _, kinds := range []map[syscall.Errno]string{errorKinds, testedKinds, erasKinds[e]} {
		if kind := kinds[no]; kind != "" {
			return kind
		}
		if e == types.Untested {
			return ""
		}
	}
	return "Uncategorized"
}

// gnuMessage is what glibc's strerror_r says in a program that has set no locale, as
// Rust's do not (sysdeps/gnu/errlist.h, string/strerror_l.c).
func gnuMessage(code int32) string {
	switch {
	case code == 0:
		return "Success"
	case code == int32(syscall.ENOTRECOVERABLE)+2:
		return "Memory page has hardware error" // EHWPOISON
	case code < 0 || code > int32(syscall.ERFKILL) || code == 41 || code == 58:
		return fmt.Sprintf("Unknown error %d", code)
	}
	// Go's are glibc's, begun in lower case.
	text := []byte(syscall.Errno(code).Error())
	if c := text[0]; 'a' <= c && c <= 'z' {
		text[0] = c - 'a' + 'A'
	}
	return string(text)
}
