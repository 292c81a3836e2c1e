"""The look that all pages share: templates, style, and the server that hands them out.

- :mod:`.drawing`: templates (``*.html.j2``) drawn, ``*.css`` and ``*.js`` of this folder handed out
- :mod:`.serving`: strict headers around an application, and a server with one-line mistakes

A page works without scripts. Nothing is loaded from elsewhere, and every text is a stranger's: it
is escaped by the templates, and a script or style inside a page would not be run
(``Content-Security-Policy``). Templates therefore hold no ``style=`` and no ``onclick=``.
"""
