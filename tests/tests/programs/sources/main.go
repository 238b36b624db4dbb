// Asks again and again in one of several ways, and prints the answers.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const patience = time.Second

func resolve(name string) (string, error) {
	deadline, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(deadline, name)
	if err != nil {
		return "", err
	}
	return addresses[0], nil
}

func get(url string) (string, error) {
	client := http.Client{Timeout: patience}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return strings.TrimSpace(string(body)), err
}

// One socket for the whole life of the program; it connects at most once.
func datagrams(address string, connected bool) func(string) (string, error) {
	server, err := net.ResolveUDPAddr("udp", address)
	if err != nil {
		panic(err)
	}
	var socket *net.UDPConn
	if connected {
		socket, err = net.DialUDP("udp", nil, server)
	} else {
		socket, err = net.ListenUDP("udp", nil)
	}
	if err != nil {
		panic(err)
	}
	return func(string) (string, error) {
		if connected {
			_, err = socket.Write([]byte("question"))
		} else {
			_, err = socket.WriteToUDP([]byte("question"), server)
		}
		if err != nil {
			return "", err
		}
		answer := make([]byte, 512)
		socket.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		length, source, err := socket.ReadFromUDP(answer)
		if err == nil && source.String() != server.String() {
			err = fmt.Errorf("an answer from %s, which was not asked", source)
		}
		return string(answer[:length]), err
	}
}

func main() {
	asks := map[string]func(string) (string, error){"resolve": resolve, "get": get}
	switch os.Args[1] {
	case "connected", "unconnected":
		asks[os.Args[1]] = datagrams(os.Args[2], os.Args[1] == "connected")
	}
	for {
		answer, err := asks[os.Args[1]](os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		} else {
			fmt.Println(answer)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
