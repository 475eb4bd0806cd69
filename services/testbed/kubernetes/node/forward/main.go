// forward --netns /run/netns/X --listen a:p [--listen b:p] --to 127.0.0.1:p
// listens inside a network namespace and dials from the one it was started in,
// so that a node in a namespace of its own reaches an API server that listens
// on the machine's loopback only.
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

func main() {
	ns := flag.String("netns", "", "path of the network namespace to listen in")
	to := flag.String("to", "", "address to dial, in the starter's namespace")
	var listen []string
	flag.Func("listen", "address to listen on, inside the namespace", func(s string) error { listen = append(listen, s); return nil })
	flag.Parse()

	listeners, err := listenIn(*ns, listen)
	if err != nil {
		fail(err)
	}
	for _, l := range listeners {
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					fail(err)
				}
				go relay(c.(*net.TCPConn), *to)
			}
		}()
	}
	select {}
}

// A listener keeps the namespace of the thread that made it. The thread stays
// locked and ends with its goroutine.
func listenIn(ns string, addresses []string) ([]net.Listener, error) {
	made := make(chan error)
	var listeners []net.Listener
	go func() {
		runtime.LockOSThread()
		f, err := os.Open(ns)
		if err == nil {
			err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
		}
		for _, a := range addresses {
			if err != nil {
				break
			}
			var l net.Listener
			if l, err = net.Listen("tcp", a); err == nil {
				listeners = append(listeners, l)
			}
		}
		made <- err
	}()
	err := <-made
	return listeners, err
}

func relay(c *net.TCPConn, to string) {
	defer c.Close()
	d, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer d.Close()
	done := make(chan struct{}, 2)
	pipe := func(dst, src *net.TCPConn) {
		io.Copy(dst, src) //nolint:errcheck
		dst.CloseWrite()  //nolint:errcheck
		done <- struct{}{}
	}
	go pipe(d.(*net.TCPConn), c)
	go pipe(c, d.(*net.TCPConn))
	<-done
	<-done
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "forward:", err)
	os.Exit(1)
}
