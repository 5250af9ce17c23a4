/* The typical application at a submission server: connect, EHLO, STARTTLS, EHLO, AUTH PLAIN, one message, QUIT; again and again.
 *
 * Usage: application PORT SESSIONS CLIENTS LENGTH clear|tls|resumed AUTH
 * SESSIONS in all, by CLIENTS threads with blocking sockets on 127.0.0.1; a message of LENGTH octets; AUTH is the base64 of PLAIN.
 * Nothing is pipelined, as no common mail library does so. "resumed" offers the last TLS session of the thread again.
 * Prints the seconds it took and how many TLS sessions were resumed. Any reply but the expected one ends it with status 1.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { CLEAR, TLS, RESUMED };

static int port, mode;
static size_t message_length;
static char *message, *auth;
static SSL_CTX *context;
static atomic_int left, resumed;

typedef struct {
    int socket;
    SSL *ssl;
    SSL_SESSION *session;
} Client;

static void fail(const char *what, const char *detail)
{
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(1);
}

static void put(Client *client, const char *octets, size_t length)
{
    while (length > 0) {
        ssize_t done = client->ssl ? SSL_write(client->ssl, octets, (int)length) : send(client->socket, octets, length, MSG_NOSIGNAL);
        if (done <= 0)
            fail("cannot send", "the connection is lost");
        octets += done;
        length -= (size_t)done;
    }
}

/* Read one reply, whose code must be `code`. */
static void expect(Client *client, const char *code)
{
    char reply[8192];
    size_t have = 0, line = 0;
    for (;;) {
        ssize_t got = client->ssl ? SSL_read(client->ssl, reply + have, (int)(sizeof reply - 1 - have))
                                  : recv(client->socket, reply + have, sizeof reply - 1 - have, 0);
        if (got <= 0)
            fail("no reply, expected", code);
        have += (size_t)got;
        reply[have] = 0;
        for (char *end; (end = strstr(reply + line, "\r\n")) != NULL; line = (size_t)(end + 2 - reply)) {
            if (strncmp(reply + line, code, 3) != 0)
                fail("unexpected reply", reply + line);
            if (reply[line + 3] != '-')
                return;
        }
    }
}

static void say(Client *client, const char *line, const char *code)
{
    put(client, line, strlen(line));
    expect(client, code);
}

static void start_tls(Client *client)
{
    say(client, "STARTTLS\r\n", "220");
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, client->socket);
    if (mode == RESUMED && client->session)
        SSL_set_session(ssl, client->session);
    if (SSL_connect(ssl) != 1)
        fail("TLS", "the handshake failed");
    atomic_fetch_add(&resumed, SSL_session_reused(ssl));
    client->ssl = ssl;
    say(client, "EHLO client.example.com\r\n", "250");
}

/* By hand and not by the library's cache, which uses a TLS 1.3 ticket only once: a server may send none at a resumption. */
static void keep_session(Client *client)
{
    SSL_SESSION *session = SSL_get1_session(client->ssl);
    if (SSL_SESSION_is_resumable(session)) {
        SSL_SESSION_free(client->session);
        client->session = session;
    } else {
        SSL_SESSION_free(session);
    }
}

static void submit(Client *client)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    const int on = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    client->socket = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(client->socket, (struct sockaddr *)&address, sizeof address) != 0)
        fail("connect", "refused");
    expect(client, "220");
    say(client, "EHLO client.example.com\r\n", "250");
    if (mode != CLEAR)
        start_tls(client);
    say(client, auth, "235");
    say(client, "MAIL FROM:<a@example.com>\r\n", "250");
    say(client, "RCPT TO:<b@example.net>\r\n", "250");
    say(client, "DATA\r\n", "354");
    put(client, message, message_length);
    expect(client, "250");
    say(client, "QUIT\r\n", "221");
    if (client->ssl) {
        keep_session(client);
        SSL_shutdown(client->ssl);
        SSL_free(client->ssl);
        client->ssl = NULL;
    }
    close(client->socket);
}

static void *run(void *unused)
{
    Client client = {0};
    (void)unused;
    while (atomic_fetch_sub(&left, 1) > 0)
        submit(&client);
    return NULL;
}

static void write_message(size_t length)
{
    static const char head[] = "From: <a@example.com>\r\nTo: <b@example.net>\r\nSubject: bench\r\n\r\n";
    static const char line[] = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    message = malloc(length + sizeof head + sizeof line + 8);
    strcpy(message, head);
    message_length = sizeof head - 1;
    while (message_length < length) {
        memcpy(message + message_length, line, sizeof line - 1);
        message_length += sizeof line - 1;
    }
    memcpy(message + message_length, ".\r\n", 3);
    message_length += 3;
}

int main(int count, char **arguments)
{
    struct timespec begun, ended;
    if (count != 7)
        fail("usage", "application PORT SESSIONS CLIENTS LENGTH clear|tls|resumed AUTH");
    port = atoi(arguments[1]);
    atomic_store(&left, atoi(arguments[2]));
    int clients = atoi(arguments[3]);
    write_message((size_t)atol(arguments[4]));
    mode = strcmp(arguments[5], "clear") == 0 ? CLEAR : strcmp(arguments[5], "tls") == 0 ? TLS : RESUMED;
    auth = malloc(strlen(arguments[6]) + 16);
    sprintf(auth, "AUTH PLAIN %s\r\n", arguments[6]);
    context = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    pthread_t *threads = calloc((size_t)clients, sizeof *threads);
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (int number = 0; number < clients; number++)
        pthread_create(&threads[number], NULL, run, NULL);
    for (int number = 0; number < clients; number++)
        pthread_join(threads[number], NULL);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.6f %d\n", (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9, atomic_load(&resumed));
    return 0;
}
